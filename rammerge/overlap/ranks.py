"""How many directions the changes of agents have: ranks of their task vectors' matrices."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class MatrixRanks:
    """The ranks of each agent's task vector in one matrix; 0 where it changed nothing.

    Attributes:
        full: the highest rank that there could be: the short side.
        effective: exp of the entropy of the singular values, each divided by their sum (Roy and Vetterli 2007).
        stable: squared Frobenius norm over squared largest singular value (Rudelson and Vershynin 2007).
    """

    full: int
    effective: tuple[float, ...]
    stable: tuple[float, ...]


@dataclass(frozen=True)
class Ranks:
    """The ranks of each agent's task vector.

    Attributes:
        agents: their names, in the recipe's order.
        by_tensor: matrix -> its ranks.
    """

    agents: tuple[str, ...]
    by_tensor: Mapping[str, MatrixRanks]

    def shares(self, tensors: Sequence[str] | None = None) -> list[float | None]:
        """Return each agent's effective rank as a share of the most possible, over matrices that it changed.

        None where an agent changed none of `tensors`, or where none is a matrix. Without `tensors`: all.
        """
        names = self.by_tensor if tensors is None else [name for name in tensors if name in self.by_tensor]
        found = [self.by_tensor[name] for name in names]
        return [_share([(ranks.effective[at], ranks.full) for ranks in found]) for at in range(len(self.agents))]

    def stable(self) -> list[float | None]:
        """Return each agent's mean stable rank over the matrices that it changed."""
        rows = [[ranks.stable[at] for ranks in self.by_tensor.values()] for at in range(len(self.agents))]
        return [_mean([rank for rank in row if rank]) for row in rows]

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain JSON."""
        return {"agents": list(self.agents), "by_tensor": {name: asdict(each) for name, each in self.by_tensor.items()}}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Ranks:
        """Return what `to_json` wrote."""
        read = {
            name: MatrixRanks(each["full"], tuple(each["effective"]), tuple(each["stable"]))
            for name, each in content["by_tensor"].items()
        }
        return cls(tuple(content["agents"]), read)


def ranks_of(squares: Sequence[float]) -> tuple[float, float]:
    """Return (effective, stable) rank of a matrix from its squared singular values, (0, 0) if it is zero."""
    values = [math.sqrt(max(0.0, square)) for square in squares]
    largest, total = max(values, default=0.0), math.fsum(values)
    if not largest:
        return 0.0, 0.0
    shares = [value / total for value in values if value]
    entropy = -math.fsum(share * math.log(share) for share in shares)
    return math.exp(entropy), math.fsum(value * value for value in values) / largest**2


def _share(pairs: Sequence[tuple[float, int]]) -> float | None:
    changed = [(effective, full) for effective, full in pairs if effective]
    return math.fsum(effective for effective, _ in changed) / sum(full for _, full in changed) if changed else None


def _mean(values: Sequence[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None
