"""Inner products of task vectors: how long they are, and whether they point the same way."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any


@dataclass(frozen=True)
class Gram:
    """The inner products of N task vectors in float64.

    Attributes:
        agents: their names, in the recipe's order.
        by_tensor: tensor -> <tau_i, tau_j> for i <= j, row after row of the upper triangle.
    """

    agents: tuple[str, ...]
    by_tensor: Mapping[str, Sequence[float]]

    def matrix(self, tensors: str | Sequence[str] | None = None) -> list[list[float]]:
        """Return [i][j] = <tau_i, tau_j> for one tensor, for several together or (None) for the whole model."""
        upper = self._upper(tensors)
        n = len(self.agents)
        return [[upper[_place(min(i, j), max(i, j), n)] for j in range(n)] for i in range(n)]

    def weighted(self, weights: Sequence[float]) -> Gram:
        """Return the inner products of task vectors that are multiplied by `weights`."""
        factors = [left * right for at, left in enumerate(weights) for right in weights[at:]]
        scaled = {
            tensor: [product * factor for product, factor in zip(upper, factors, strict=True)]
            for tensor, upper in self.by_tensor.items()
        }
        return Gram(self.agents, scaled)

    def cosines(self, tensors: str | Sequence[str] | None = None) -> list[list[float | None]]:
        """Return [i][j] = the cosine of two task vectors, None where one of them is zero."""
        return cosines(self.matrix(tensors))

    def _upper(self, tensors: str | Sequence[str] | None) -> Sequence[float]:
        if tensors is None:
            return self._whole_model
        return self.by_tensor[tensors] if isinstance(tensors, str) else self._added(tensors)

    @cached_property
    def _whole_model(self) -> list[float]:
        return self._added(list(self.by_tensor))

    def _added(self, tensors: Sequence[str]) -> list[float]:
        pairs = len(self.agents) * (len(self.agents) + 1) // 2
        # Exact and rounded once, so that the order of the tensors has no effect.
        return [math.fsum(self.by_tensor[name][at] for name in tensors) for at in range(pairs)]

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain JSON."""
        return {"agents": list(self.agents), "by_tensor": {name: list(row) for name, row in self.by_tensor.items()}}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Gram:
        """Return what `to_json` wrote."""
        return cls(tuple(content["agents"]), content["by_tensor"])


def cosines(gram: Sequence[Sequence[float]]) -> list[list[float | None]]:
    """Return the cosines of vectors from their inner products, None where a vector is zero."""
    lengths = [math.sqrt(row[at]) for at, row in enumerate(gram)]

    def cosine(i: int, j: int) -> float | None:
        if not (lengths[i] and lengths[j]):
            return None
        # Divided one after the other: the product of two lengths may be too small for float64.
        return 1.0 if i == j else max(-1.0, min(1.0, gram[i][j] / lengths[i] / lengths[j]))

    return [[cosine(i, j) for j in range(len(gram))] for i in range(len(gram))]


def _place(i: int, j: int, n: int) -> int:
    return i * n - i * (i - 1) // 2 + j - i
