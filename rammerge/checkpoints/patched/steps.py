"""Differences of floats in representable steps: exact for any bits.

A float's bits are mapped to an integer that grows with the float, so that consecutive floats have consecutive integers,
-0.0 is one step below 0.0, and each NaN keeps its own. The difference of two such integers is a number of steps, which
after a few steps of reinforcement learning is zero for most elements and small for the others.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rammerge.numerics.dtypes import DType


def steps_between(new: NDArray[Any], old: NDArray[Any], dtype: DType) -> NDArray[Any]:
    """Return by how many steps elements changed: 0, -1, 1, -2, 2 and so on as 0, 1, 2, 3, 4."""
    steps = _ordered(new, dtype) - _ordered(old, dtype)
    zigzag: NDArray[Any] = (steps << 1) ^ (steps.dtype.type(0) - (steps >> (8 * dtype.itemsize - 1)))
    return zigzag


def moved(bits: NDArray[Any], zigzag: NDArray[Any], dtype: DType) -> NDArray[Any]:
    """Return the elements that are `zigzag` steps from those of `bits`."""
    return _bits(_ordered(bits, dtype) + ((zigzag >> 1) ^ (zigzag.dtype.type(0) - (zigzag & 1))), dtype)


def unsigned(dtype: DType) -> np.dtype[Any]:
    """Return the unsigned integers that are as wide as elements of `dtype`."""
    return np.dtype(f"<u{dtype.itemsize}")


def _ordered(bits: NDArray[Any], dtype: DType) -> NDArray[Any]:
    """Return the floats of `bits` as unsigned integers that grow with them; integers stay as they are."""
    if not dtype.is_floating_point:
        return bits
    sign = bits.dtype.type(1 << (8 * dtype.itemsize - 1))
    negative = bits.dtype.type(0) - (bits >> (8 * dtype.itemsize - 1))
    mapped: NDArray[Any] = bits ^ (negative | sign)
    return mapped


def _bits(ordered: NDArray[Any], dtype: DType) -> NDArray[Any]:
    """Invert `_ordered`."""
    if not dtype.is_floating_point:
        return ordered
    sign = ordered.dtype.type(1 << (8 * dtype.itemsize - 1))
    negative = (ordered >> (8 * dtype.itemsize - 1)) - ordered.dtype.type(1)
    mapped: NDArray[Any] = ordered ^ (negative | sign)
    return mapped
