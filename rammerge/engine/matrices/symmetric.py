"""Products of a matrix with itself, whose result is symmetric, with about half of the work."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

# Rows of the result that are computed together, from the first column to the diagonal. More rows compute more beyond
# it; fewer do not reach the speed of large products.
_PANEL = 128


def add_product(total: Tensor, matrix: Tensor) -> None:
    """Add the inner products of a matrix's rows to `total`, below the diagonal at least; see `mirror`.

    Args:
        total: float64 [m, m].
        matrix: float64 [m, n].
    """
    if total.device.type != "cpu":  # where a product of this size is faster as a whole
        total.addmm_(matrix, matrix.T)
        return
    for start in range(0, len(matrix), _PANEL):
        stop = start + _PANEL
        total[start:stop, :stop].addmm_(matrix[start:stop], matrix[:stop].T)


def mirror(total: Tensor) -> None:
    """Copy what is below the diagonal to the other side."""
    for start in range(0, len(total), _PANEL):
        stop = start + _PANEL
        total[:start, start:stop] = total[start:stop, :start].T
