"""Counting magnitudes by their bit patterns, whose order is the order of the values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rammerge.system.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

# Compiled code counts neighboring magnitudes in separate lanes (tiles.cpp).
LANES = 4
# The number of values of the upper 16 bits of a float32, and the bytes of a row with that many bins.
MAX_BINS = 1 << 16
ROW_BYTES = LANES * (MAX_BINS + 1) * 8


@dataclass(frozen=True)
class Histogram:
    """Counts per agent: a row of bins of 2**shift bit patterns each, starting at the row's first pattern.

    Attributes:
        firsts: the first pattern of each row.
        shift: binary logarithm of the number of patterns per bin.
        lanes: int64 [rows, LANES, bins + 1]; the last column counts all other patterns.
    """

    firsts: tuple[int, ...]
    shift: int
    lanes: NDArray[np.int64]

    @classmethod
    def empty(cls, firsts: Sequence[int], bins: int, shift: int) -> Histogram:
        """Return an empty histogram."""
        return cls(tuple(firsts), shift, np.zeros((len(firsts), LANES, bins + 1), dtype=np.int64))

    @property
    def span(self) -> int:
        """The number of patterns in all bins."""
        return (int(self.lanes.shape[2]) - 1) << self.shift

    def add(self, magnitudes: Sequence[Tensor]) -> None:
        """Count the values of non-negative float32 [n], one tensor per row."""
        for values, first, lanes in zip(magnitudes, self.firsts, self.lanes, strict=True):
            place = values.view(torch.int32) - first
            if self.span <= torch.iinfo(torch.int32).max:
                place = place[(place >= 0) & (place < self.span)]
            lanes[0] += torch.bincount(place >> self.shift, minlength=lanes.shape[1]).numpy(force=True)

    def counts(self) -> NDArray[np.int64]:
        """Return the counts, [rows, bins]."""
        counts: NDArray[np.int64] = self.lanes[:, :, :-1].sum(axis=1)
        return counts
