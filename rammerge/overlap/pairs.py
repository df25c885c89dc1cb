"""Two agents at a time: what both changed, and whether in the same direction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any


@dataclass(frozen=True)
class Pairs:
    """What each two agents changed together.

    Attributes:
        agents: their names, in the recipe's order.
        by_tensor: tensor -> for each two agents i < j, row after row of the upper triangle: elements that both
            changed, and of those the elements whose changes have the same sign.
    """

    agents: tuple[str, ...]
    by_tensor: Mapping[str, Sequence[int]]

    def names(self) -> list[tuple[str, str]]:
        """Return each two agents, in the order of the counts."""
        return list(combinations(self.agents, 2))

    def counts(self, tensors: Sequence[str] | None = None) -> list[tuple[int, int]]:
        """Return (changed by both, of these with the same sign) for each two agents, over some tensors or all."""
        rows = [self.by_tensor[name] for name in (self.by_tensor if tensors is None else tensors)]
        sums = [sum(column) for column in zip(*rows, strict=True)] or [0] * 2 * len(self.names())
        return list(zip(sums[::2], sums[1::2], strict=True))

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain JSON."""
        return {"agents": list(self.agents), "by_tensor": {name: list(row) for name, row in self.by_tensor.items()}}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Pairs:
        """Return what `to_json` wrote."""
        return cls(tuple(content["agents"]), content["by_tensor"])
