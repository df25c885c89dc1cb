"""What a block function needs for a unit: numbers, and a place for its tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rammerge.engine.blocks import Numbers

if TYPE_CHECKING:
    from torch import Tensor

    from rammerge.engine.histogram import Histogram
    from rammerge.engine.sums import GrainSums


@dataclass(frozen=True)
class Work:
    """One block function's work on a unit.

    Attributes:
        numbers: what it computes with.
        results: memory for its tensors' elements; on a GPU tensors.
        histogram: counts the tensors instead.
        sums: sums the tensors instead.
    """

    numbers: Numbers
    results: Sequence[memoryview | Tensor] = ()
    histogram: Histogram | None = None
    sums: GrainSums | None = None
