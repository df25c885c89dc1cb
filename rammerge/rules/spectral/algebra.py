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
    values, vectors, _ = spectrum_and_rest(gram, most)
    return values, vectors


def spectrum_and_rest(gram: Tensor, most: int | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Return what `spectrum` does, and a basis of the directions that it leaves out: float64 [m, m - r]."""
    squares, vectors = torch.linalg.eigh(gram)
    values = squares.clamp(min=0.0).sqrt().flip(0)
    rank = int((values > TOLERANCE * values[:1]).sum())
    kept = rank if most is None else min(rank, most)
    rest = len(values) - kept
    return values[:kept], vectors[:, rest:].flip(1), vectors[:, :rest]


def inverse_root(gram: Tensor) -> Tensor:
    """Return the inverse square root of a positive semidefinite matrix, zero on what is rounding."""
    values, vectors = spectrum(gram)
    return (vectors / values) @ vectors.T


def times_inverse_root(matrix: Tensor, corner: Tensor, block: Tensor) -> Tensor:
    """Return a matrix times the inverse square root of [[1, corner], [corner^T, block]], positive semidefinite.

    It is the identity but for as many directions of its first part as `corner` has, and for its second part.

    Args:
        matrix: float64 [m, c + k].
        corner: float64 [c, k].
        block: float64 [k, k].
    """
    count = len(corner)
    basis, inner = torch.linalg.qr(corner)
    seen = len(inner)
    identity = torch.eye(seen + len(block)).to(block)
    small = identity.clone()
    small[:seen, seen:], small[seen:, :seen], small[seen:, seen:] = inner, inner.T, block
    turned = torch.cat([matrix[:, :count] @ basis, matrix[:, count:]], 1) @ (inverse_root(small) - identity)
    return matrix + torch.cat([turned[:, :seen] @ basis.T, turned[:, seen:]], 1)


def row_products(right: list[Tensor], grams: Grams) -> Tensor:
    """Return the inner products of the rows of R, the sum of right_t [k, m] times matrix t: float64 [k, k]."""
    rows = torch.zeros(len(right[0]), len(right[0])).to(right[0])
    for i, own in enumerate(right):
        for j, other in enumerate(right):
            rows.addmm_(own @ grams[i, j], other.T)
    return rows


def polar_rows(left: Tensor, values: Tensor, rows: Tensor) -> Tensor:
    """Return P diag(values) (R R^T)^-1/2, where P is the polar factor of `left`.

    Times R it is P diag(values) Q, where Q is the polar factor of R. The polar factor of a matrix is the nearest one
    with orthonormal columns or rows. Directions that `left` or R has twice, because agents are alike, are taken once,
    and not filled up with arbitrary ones.

    Args:
        left: float64 [m, k].
        values: float64 [k].
        rows: float64 [k, k], R R^T.
    """
    return ((left @ inverse_root(left.T @ left)) * values) @ inverse_root(rows)
