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
# How many patterns that are not the first of their bin are kept for each row.
ROOM = 1 << 18
ROW_BYTES = LANES * (MAX_BINS + 1) * 8 + ROOM * 4
# The pattern of the largest float32, which stands for a magnitude that is not to be ranked. No change is that large.
NOT_RANKED_PATTERN = 0x7F7FFFFF


@dataclass(frozen=True)
class Histogram:
    """Counts per agent: a row of bins of 2**shift bit patterns each, starting at the row's first pattern.

    Attributes:
        firsts: the first pattern of each row.
        shift: binary logarithm of the number of patterns per bin.
        lanes: int64 [rows, LANES, bins + 1]; the last column counts all other patterns.
        others: uint32 [rows, room], the patterns of each row that are not the first of their bin. Differences of
            bfloat16 numbers are few of them.
        filled: int64 [rows], how many these are; below zero if they were too many.
    """

    firsts: tuple[int, ...]
    shift: int
    lanes: NDArray[np.int64]
    others: NDArray[np.uint32]
    filled: NDArray[np.int64]

    @classmethod
    def empty(cls, firsts: Sequence[int], bins: int, shift: int, *, keeps: bool = False) -> Histogram:
        """Return an empty histogram; with `keeps` one of rows that start at zero, which keeps `others`."""
        rows = len(firsts)
        others = np.empty((rows, ROOM if keeps else 0), dtype=np.uint32)
        lanes = np.zeros((rows, LANES, bins + 1), dtype=np.int64)
        return cls(tuple(firsts), shift, lanes, others, np.full(rows, 0 if keeps else -1, dtype=np.int64))

    @property
    def span(self) -> int:
        """The number of patterns in all bins."""
        return (int(self.lanes.shape[2]) - 1) << self.shift

    def add(self, magnitudes: Sequence[Tensor]) -> None:
        """Count the values of non-negative float32 [n], one tensor per row."""
        for row, (values, first, lanes) in enumerate(zip(magnitudes, self.firsts, self.lanes, strict=True)):
            self._keep(row, values.view(torch.int32))
            place = values.view(torch.int32) - first
            if self.span <= torch.iinfo(torch.int32).max:
                place = place[(place >= 0) & (place < self.span)]
            lanes[0] += torch.bincount(place >> self.shift, minlength=lanes.shape[1]).numpy(force=True)

    def _keep(self, row: int, patterns: Tensor) -> None:
        if self.filled[row] < 0:
            return
        kept = patterns[((patterns & ((1 << self.shift) - 1)) != 0) & (patterns != NOT_RANKED_PATTERN)]
        start, stop = int(self.filled[row]), int(self.filled[row]) + len(kept)
        if stop <= self.others.shape[1]:
            self.others[row, start:stop] = kept.numpy(force=True).view(np.uint32)
        self.filled[row] = stop if stop <= self.others.shape[1] else -1

    def counts(self) -> NDArray[np.int64]:
        """Return the counts, [rows, bins]."""
        counts: NDArray[np.int64] = self.lanes[:, :, :-1].sum(axis=1)
        return counts
