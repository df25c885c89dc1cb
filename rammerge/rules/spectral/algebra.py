"""Singular values and functions of a matrix from the inner products of its rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rammerge.engine.matrices.method import Grams
from rammerge.system.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

# Smaller singular values than this share of the largest are rounding, and so are their vectors: float64 inner products
# resolve squares down to 1e-16 of the largest.
TOLERANCE = 1e-6


def spectrum(gram: Tensor, most: int | None = None) -> tuple[Tensor, Tensor]:
    """Return the singular values of a matrix that are not rounding, largest first, and its left singular vectors.

    Args:
        gram: float64 [m, m], the matrix times its transpose.
        most: return no more than this many.

    Returns:
        float64 [r] and [m, r], where r is the numerical rank or `most`.
    """
    squares, vectors = torch.linalg.eigh(gram)
    values = squares.clamp(min=0.0).sqrt().flip(0)
    rank = int((values > TOLERANCE * values[0]).sum())
    kept = rank if most is None else min(rank, most)
    return values[:kept], vectors[:, len(values) - kept :].flip(1)


def inverse_root(gram: Tensor) -> Tensor:
    """Return the inverse square root of a positive semidefinite matrix, zero on what is rounding."""
    values, vectors = spectrum(gram)
    return (vectors / values) @ vectors.T


def polar(left: Tensor, values: Tensor, right: list[Tensor], grams: Grams) -> list[Tensor]:
    """Return the multipliers of P diag(values) Q, where P and Q are the polar factors of `left` and of R.

    R is the sum of right_t times matrix t. The polar factor of a matrix is the nearest one with orthonormal columns or
    rows. Directions that `left` or R has twice, because agents are alike, are taken once, and not filled up with
    arbitrary ones.

    Args:
        left: float64 [m, k].
        values: float64 [k].
        right: float64 [k, m] for each matrix. The list is used up.
        grams: the matrices' inner products.
    """
    turned = polar_rows(left, values, row_products(right, grams))
    return [turned @ right.pop(0) for _ in range(len(grams))]


def row_products(right: list[Tensor], grams: Grams) -> Tensor:
    """Return the inner products of the rows of R, the sum of right_t [k, m] times matrix t: float64 [k, k]."""
    rows = torch.zeros(len(right[0]), len(right[0])).to(right[0])
    for i, own in enumerate(right):
        for j, other in enumerate(right):
            rows.addmm_(own @ grams[i, j], other.T)
    return rows


def polar_rows(left: Tensor, values: Tensor, rows: Tensor) -> Tensor:
    """Return P diag(values) (R R^T)^-1/2, where P is the polar factor of `left`; times R it is what `polar` is about.

    Args:
        left: float64 [m, k].
        values: float64 [k].
        rows: float64 [k, k], R R^T.
    """
    return ((left @ inverse_root(left.T @ left)) * values) @ inverse_root(rows)
