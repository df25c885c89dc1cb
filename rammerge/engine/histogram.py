"""Counting the magnitudes that a block function returns by their bit patterns, whose order is that of the values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rammerge.system.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

# Compiled code adds the magnitudes of neighbours to counts of their own (tiles.cpp).
LANES = 4
# The upper 16 bits of a non-negative float32, and what a row of so many bins takes.
MAX_BINS = 1 << 16
ROW_BYTES = LANES * (MAX_BINS + 1) * 8


@dataclass(frozen=True)
class Histogram:
    """Per row, which is an agent, `bins` bins of 2**shift patterns each from the row's first one on.

    Attributes:
        firsts: the first pattern of each row.
        shift: binary logarithm of the patterns that share a bin.
        lanes: int64 [rows, LANES, bins + 1], the last column for all other patterns.
    """

    firsts: tuple[int, ...]
    shift: int
    lanes: NDArray[np.int64]

    @classmethod
    def empty(cls, firsts: Sequence[int], bins: int, shift: int) -> Histogram:
        """Return one that has counted nothing."""
        return cls(tuple(firsts), shift, np.zeros((len(firsts), LANES, bins + 1), dtype=np.int64))

    @property
    def span(self) -> int:
        """How many patterns the bins hold."""
        return (int(self.lanes.shape[2]) - 1) << self.shift

    def add(self, magnitudes: Sequence[Tensor]) -> None:
        """Count non-negative float32 [n], one tensor for each row."""
        for values, first, lanes in zip(magnitudes, self.firsts, self.lanes, strict=True):
            place = values.view(torch.int32) - first
            if self.span <= torch.iinfo(torch.int32).max:
                place = place[(place >= 0) & (place < self.span)]
            lanes[0] += torch.bincount(place >> self.shift, minlength=lanes.shape[1]).numpy(force=True)

    def counts(self) -> NDArray[np.int64]:
        """Return the counts, [rows, bins]."""
        counts: NDArray[np.int64] = self.lanes[:, :, :-1].sum(axis=1)
        return counts
