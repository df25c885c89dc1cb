"""Estimates of means and differences, and the seeds of everything that is drawn."""

import hashlib
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A mean or a difference of means, with its confidence limits.

    Attributes:
        value: the mean.
        low, high: the limits.
        n: number of items.
        method: what gave the limits.
        clusters: number of clusters of related items; None where items count as independent.
        design_effect: how many times the variance exceeds that of as many independent answers, as measured.
    """

    value: float
    low: float
    high: float
    n: int
    method: str
    clusters: int | None = field(default=None, kw_only=True)
    design_effect: float = field(default=1.0, kw_only=True)

    def to_json(self) -> dict[str, Any]:
        """Return the fields as a JSON object."""
        return asdict(self)


@dataclass(frozen=True)
class Difference(Estimate):
    """Ours minus theirs on the same items: on how many each scored higher, and the two-sided p of no difference."""

    wins: int
    losses: int
    p_value: float
    test: str


def resampling_seed(*names: str) -> int:
    """Return a 64-bit seed that depends on the names and their order alone (SHA-256)."""
    digest = hashlib.sha256(b"".join(len(name).to_bytes(8, "big") + name.encode() for name in names)).digest()
    return int.from_bytes(digest[:8], "big")
