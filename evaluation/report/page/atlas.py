"""Where the agents changed the model: shares by layer and kind of module."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations, combinations_with_replacement

# The first number of a tensor's name is its layer's; experts and other numbers below it are summed over.
_LAYER = re.compile(r"\.(\d+)\.")
_NO_LAYER = "outside"


@dataclass(frozen=True)
class Cell:
    """Counts of one agent in one layer's modules of one kind.

    Attributes:
        elements: of the model there.
        active: that the agent changed.
        unique: that no other agent changed.
    """

    elements: int
    active: int
    unique: int

    @property
    def density(self) -> float:
        """Share of the elements that the agent changed."""
        return self.active / self.elements

    def __add__(self, other: "Cell") -> "Cell":
        """Return the counts of both together."""
        return Cell(self.elements + other.elements, self.active + other.active, self.unique + other.unique)


@dataclass(frozen=True)
class Atlas:
    """Counts by agent, layer and kind of module.

    Attributes:
        layers: names of the rows: numbers in order, then `outside` for what belongs to no layer.
        modules: names of the columns, in the model's order.
        agents: agent -> layer -> module -> counts; a model without that module in that layer has no such entry.
        pairs: two agents -> layer -> cosine of their changes there, None where one of them changed nothing; empty if
            directions were not measured.
    """

    layers: Sequence[str]
    modules: Sequence[str]
    agents: Mapping[str, Mapping[str, Mapping[str, Cell]]]
    pairs: Mapping[str, Mapping[str, float | None]] = field(default_factory=dict)

    @property
    def highest(self) -> float:
        """The highest density of any cell."""
        layers = (layer for layers in self.agents.values() for layer in layers.values())
        return max((cell.density for layer in layers for cell in layer.values()), default=0.0)


def build_atlas(
    agents: Sequence[str],
    by_tensor: Mapping[str, Sequence[Sequence[int]]],
    sizes: Mapping[str, int],
    products: Mapping[str, Sequence[float]] | None = None,
) -> Atlas:
    """Sum counts of tensors by layer and kind of module, and inner products by layer.

    Args:
        agents: names, in the order of the counts.
        by_tensor: tensor -> [agent][k - 1] = elements that this agent and k - 1 others changed.
        sizes: tensor -> elements.
        products: tensor -> <tau_i, tau_j> for i <= j, row after row of the upper triangle, if they were measured.
    """
    cells: dict[str, dict[str, dict[str, Cell]]] = {agent: {} for agent in agents}
    for tensor, counts in by_tensor.items():
        layer, module = _place(tensor)
        for agent, row in zip(agents, counts, strict=True):
            there = cells[agent].setdefault(layer, {})
            there[module] = there.get(module, Cell(0, 0, 0)) + Cell(sizes[tensor], sum(row), row[0])
    places = list(dict.fromkeys(_place(tensor) for tensor in by_tensor))
    layers = sorted({layer for layer, _ in places}, key=_by_number)
    in_layers = [module for layer, module in places if layer != _NO_LAYER]
    modules = dict.fromkeys([*in_layers, *(module for _, module in places)])
    return Atlas(layers, list(modules), cells, _pairs(agents, products or {}))


def _pairs(agents: Sequence[str], products: Mapping[str, Sequence[float]]) -> dict[str, dict[str, float | None]]:
    """Return the cosine of every two agents' changes, by layer."""
    by_layer: dict[str, list[list[float]]] = {}
    for tensor, upper in products.items():
        by_layer.setdefault(_place(tensor)[0], []).append(list(upper))
    places = list(combinations_with_replacement(range(len(agents)), 2))
    found: dict[str, dict[str, float | None]] = {}
    for layer, uppers in by_layer.items():
        total = dict(zip(places, map(math.fsum, zip(*uppers, strict=True)), strict=True))
        for i, j in combinations(range(len(agents)), 2):
            lengths = math.sqrt(total[i, i]), math.sqrt(total[j, j])
            cosine = total[i, j] / lengths[0] / lengths[1] if all(lengths) else None
            found.setdefault(f"{agents[i]}, {agents[j]}", {})[layer] = cosine
    return found


def _place(tensor: str) -> tuple[str, str]:
    parts = [part for part in tensor.split(".") if part not in ("weight", "bias")]
    layer = _LAYER.search(tensor)
    return (layer[1] if layer else _NO_LAYER), parts[-1]


def _by_number(layer: str) -> tuple[bool, int]:
    return layer == _NO_LAYER, 0 if layer == _NO_LAYER else int(layer)
