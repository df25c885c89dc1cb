"""Where the agents changed the model: shares by layer and kind of module."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations

from rammerge.overlap import Gram, Overlap
from rammerge.overlap.parts import OUTSIDE, grouped, layers_of, module_of, number_of


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


def build_atlas(overlap: Overlap) -> Atlas:
    """Sum the counts of tensors by layer and kind of module, and inner products, if they were measured, by layer."""
    layers = layers_of(list(overlap.by_tensor))
    cells: dict[str, dict[str, dict[str, Cell]]] = {agent: {} for agent in overlap.agents}
    for tensor, counts in overlap.by_tensor.items():
        for agent, row in zip(overlap.agents, counts, strict=True):
            there = cells[agent].setdefault(layers[tensor], {})
            found = Cell(overlap.sizes[tensor], sum(row), row[0])
            there[module_of(tensor)] = there.get(module_of(tensor), Cell(0, 0, 0)) + found
    rows = dict.fromkeys(layers[tensor] for tensor in sorted(layers, key=number_of))
    columns = dict.fromkeys(map(module_of, sorted(layers, key=lambda tensor: layers[tensor] == OUTSIDE)))
    return Atlas(list(rows), list(columns), cells, _pairs(overlap.gram, layers) if overlap.gram else {})


def _pairs(gram: Gram, layers: Mapping[str, str]) -> dict[str, dict[str, float | None]]:
    """Return the cosine of every two agents' changes, by layer."""
    found: dict[str, dict[str, float | None]] = {}
    for layer, tensors in grouped(list(layers), layers.__getitem__).items():
        cosines = gram.cosines(tensors)
        for i, j in combinations(range(len(gram.agents)), 2):
            found.setdefault(f"{gram.agents[i]}, {gram.agents[j]}", {})[layer] = cosines[i][j]
    return found
