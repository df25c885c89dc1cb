"""The places of elements in their rows, which a kernel may ask for though other elements decide them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rammerge.system.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor


def places(magnitudes: Tensor, row: int) -> Tensor:
    """Return each element's place in its row: 0 for the smallest magnitude, 1 for the largest.

    Of equal ones the first is smaller. The one element of a row that has no others is in the middle. rows.h computes
    the same.

    Args:
        magnitudes: float32 [n], none below zero, and no -0.0.
        row: how many elements a row has; n is a multiple of it.

    Returns:
        float32 [n].
    """
    if row == 1:
        return torch.full_like(magnitudes, 0.5)
    rows = magnitudes.view(-1, row)
    order = torch.argsort(rows, dim=1, stable=True)
    ranks = torch.arange(row, dtype=torch.float32, device=rows.device).expand_as(rows)
    placed = torch.empty_like(rows).scatter_(1, order, ranks)
    # By a tensor: instead of dividing by a number, torch multiplies by its reciprocal on a GPU, which rounds otherwise.
    return (placed / placed.new_full((), row - 1)).view(-1)
