"""Where the agents changed the model: shares by layer and kind of module."""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

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
        agents: agent -> (layer, module) -> counts; a model without that module in that layer has no such entry.
    """

    layers: Sequence[str]
    modules: Sequence[str]
    agents: Mapping[str, Mapping[tuple[str, str], Cell]]

    @property
    def highest(self) -> float:
        """The highest density of any cell."""
        return max((cell.density for cells in self.agents.values() for cell in cells.values()), default=0.0)


def build_atlas(
    agents: Sequence[str], by_tensor: Mapping[str, Sequence[Sequence[int]]], sizes: Mapping[str, int]
) -> Atlas:
    """Sum counts of tensors by layer and kind of module.

    Args:
        agents: names, in the order of the counts.
        by_tensor: tensor -> [agent][k - 1] = elements that this agent and k - 1 others changed.
        sizes: tensor -> elements.
    """
    cells: dict[str, dict[tuple[str, str], Cell]] = {agent: defaultdict(lambda: Cell(0, 0, 0)) for agent in agents}
    for tensor, counts in by_tensor.items():
        for agent, row in zip(agents, counts, strict=True):
            cells[agent][_place(tensor)] += Cell(sizes[tensor], sum(row), row[0])
    places = list(dict.fromkeys(_place(tensor) for tensor in by_tensor))
    layers = sorted({layer for layer, _ in places}, key=_by_number)
    in_layers = [module for layer, module in places if layer != _NO_LAYER]
    modules = dict.fromkeys([*in_layers, *(module for _, module in places)])
    return Atlas(layers, list(modules), {agent: dict(found) for agent, found in cells.items()})


def _place(tensor: str) -> tuple[str, str]:
    parts = [part for part in tensor.split(".") if part not in ("weight", "bias")]
    layer = _LAYER.search(tensor)
    return (layer[1] if layer else _NO_LAYER), parts[-1]


def _by_number(layer: str) -> tuple[bool, int]:
    return layer == _NO_LAYER, 0 if layer == _NO_LAYER else int(layer)
