"""Sums of float64 values in a fixed order: the same bits however a tensor is cut, eager or compiled, on any machine.

A *grain* is a fixed number of consecutive elements of a tensor. Within a grain the additions follow one order, which
elementwise.h mirrors. The sums of a tensor's grains are added exactly and rounded once, so their order has no effect.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING

from rammerge.system.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

# A grain consists of groups, a group of rows, a row of lanes. Each lane adds up its elements of a group, row by row;
# then its groups; then the lanes are added in pairs. A block has whole grains, but for a tensor's last one.
LANES, ROWS, GROUPS = 16, 64, 16
GRAIN = LANES * ROWS * GROUPS


@dataclass
class GrainSums:
    """The sums of several values over each grain of a unit.

    Attributes:
        width: how many values are summed.
        memory: float64 [grains * width], the sums of the first grain first.
    """

    width: int
    memory: ctypes.Array[ctypes.c_double]
    _filled: int = field(default=0, init=False)

    @classmethod
    def empty(cls, width: int, elements: int) -> GrainSums:
        """Return room for the sums of a unit of `elements` elements, which starts at a grain."""
        return cls(width, (ctypes.c_double * (width * -(-elements // GRAIN)))())

    def add(self, values: Sequence[Tensor]) -> None:
        """Sum the unit's next elements, float64 [n] for each value, where n is a multiple of `GRAIN` or they end it."""
        if not values:
            return
        found = grain_sums(torch.stack(list(values))).T.flatten().tolist()
        self.memory[self._filled : self._filled + len(found)] = found
        self._filled += len(found)


def grain_sums(values: Tensor) -> Tensor:
    """Return the sums over each grain of float64 [width, n], as float64 [width, grains]."""
    width, elements = values.shape
    padded = torch.nn.functional.pad(values, (0, -elements % GRAIN))
    lanes = padded.view(width, -1, GROUPS, ROWS, LANES)
    # Addition by addition: torch's own sums go in an order that depends on the processor.
    for dimension in (3, 2):
        lanes = _in_order(lanes.unbind(dimension))
    half = LANES // 2
    while half:
        lanes = lanes[..., :half] + lanes[..., half : 2 * half]
        half //= 2
    return lanes[..., 0]


def _in_order(values: Iterable[Tensor]) -> Tensor:
    first, *rest = values
    total = torch.zeros_like(first) + first  # as compiled code begins, which turns a sum of -0.0 into 0.0
    for each in rest:
        total = total + each
    return total


def totals(units: Sequence[GrainSums]) -> list[float]:
    """Return each value's sum over the units of a tensor, in any order: exact sums of the grains', rounded once."""
    width = units[0].width
    return [math.fsum(chain.from_iterable(unit.memory[at::width] for unit in units)) for at in range(width)]
