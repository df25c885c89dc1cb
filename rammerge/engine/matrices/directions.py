"""Which task vectors change matrices in few directions only, seen from a sample of their inner products.

Weights are stored rounded, so nearly every difference of two checkpoints has full rank in numbers. What counts here is
how many singular values are more than rounding.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from rammerge.system.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

# Rows whose inner products are looked at. Each low rank below half of them shows in as many generic rows.
_SAMPLE = 256
# Singular values below this share of the largest are taken for rounding. Weights that are stored as bfloat16 leave up
# to 1e-2 beside an update of low rank, and updates of full rank have few singular values as small.
_NOISE = 1e-2

# How many directions a matrix is changed in: 0 if it is not changed, None if they are not few.
Directions = int | None


def few_directions(gram: Tensor, most: int) -> Directions:
    """Return in how many directions a task vector changes a matrix, None for at least half of those looked at.

    Args:
        gram: float64 [m, m], the inner products of the matrix's rows.
        most: the highest rank that the matrix can have.
    """
    count = min(_SAMPLE, len(gram))
    rows = torch.linspace(0, len(gram) - 1, count, dtype=torch.float64, device=gram.device).long()
    squares = torch.linalg.eigvalsh(gram[rows][:, rows])
    found = int((squares > _NOISE**2 * squares[-1]).sum()) if float(squares[-1]) > 0 else 0
    return found if found < min(count, most) / 2 else None


def few_in_most(matrices: Iterable[Sequence[Directions]]) -> list[Directions]:
    """Return for each task vector the median of its few directions, None unless most matrices that it changes have few.

    Args:
        matrices: for each matrix the directions of each task vector.
    """
    return [_median([found for found in column if found != 0]) for column in zip(*matrices, strict=True)]


def _median(changed: Sequence[Directions]) -> Directions:
    few = [found for found in changed if found is not None]
    return statistics.median_high(few) if len(few) > len(changed) / 2 else None
