"""One block of a tensor as its difference from the same elements of the base: exact for any bytes.

A float's bits are mapped to an integer that grows with the float, so that consecutive floats have consecutive integers,
-0.0 is one step below 0.0, and each NaN keeps its own. The difference of two such integers is a number of steps, which
after a few steps of reinforcement learning is zero for most elements and small for the others.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any, NamedTuple

import numpy as np
import pyarrow
from numpy.typing import NDArray

from rammerge.numerics.dtypes import DType

# Elements of a block. A block is decoded whole, and this many stay in a core's second-level cache.
BLOCK = 1 << 16
# Bitmaps and steps have too little structure for the higher levels, which search longer and find shorter matches that
# cost more than they save. Bytes are compressed at the level at which a whole file would be.
_STEPS_LEVEL, _BYTES_LEVEL = 1, 3
_SAMPLE_BYTES = 1 << 12
# Gaps take fewer bytes than a bitmap where at most one element in so many changed.
_SPARSE = 8
# Where at least one element in so many changed, steps of all take no more bytes than a bitmap and steps of some, and
# half the time to decode.
_DENSE = 2.5
# A gap of so many elements or more takes several bytes.
_LONG = 255
# The largest number of steps, in zig-zag, for which half a byte is enough.
_HALF_BYTE = 16

Bytes = NDArray[np.uint8]


class Mode(IntEnum):
    """How a block is stored.

    Attributes:
        SAME: not at all, because it is the base's.
        BITMAP: a bit for each element, set where it changed, and by how many steps each of those did.
        GAPS: the same for blocks of few changes: how many elements there are from one change to the next.
        BYTES: the bytes themselves.
        STEPS: by how many steps each element changed, for blocks of many small changes.
    """

    SAME = 0
    BITMAP = 1
    GAPS = 2
    BYTES = 3
    STEPS = 4


class Stored(NamedTuple):
    """A block as it is stored.

    Attributes:
        mode: how.
        planes: in how many planes the second frame holds its elements: the lowest byte of each, then the next. Zero if
            it has half a byte for each.
        content: bytes in the first frame before compression.
        first: the bitmap or the gaps, compressed; else empty.
        second: the steps, or the bytes, compressed; empty if the mode is `SAME`.
    """

    mode: Mode
    planes: int
    content: int
    first: bytes | memoryview
    second: bytes | memoryview

    @property
    def nbytes(self) -> int:
        """Bytes of both frames."""
        return len(self.first) + len(self.second)


def encode(values: Bytes, base: Bytes | None, dtype: DType) -> Stored:
    """Return the bytes of a block in the smallest mode.

    Args:
        values: whole elements of `dtype`.
        base: as many bytes of the base, None if it has no such elements.
        dtype: of the elements.
    """
    if base is None:
        return _encode_bytes(values, dtype)
    if np.array_equal(values, base):
        return Stored(Mode.SAME, 0, 0, b"", b"")
    steps = _encode_steps(values, base, dtype)
    # Trying both takes too long for blocks of few changes. A sample tells whether the bytes could be smaller.
    sample = values[:_SAMPLE_BYTES]
    as_bytes = len(compress(sample, _BYTES_LEVEL)) / len(sample)
    if steps.nbytes <= min(as_bytes, 0.5) * len(values):
        return steps
    return min(steps, _encode_bytes(values, dtype), key=lambda stored: stored.nbytes)


def decode(stored: Stored, base: Bytes | None, elements: int, dtype: DType) -> Bytes:
    """Return the bytes of a block of `elements` elements. No more memory is taken than they need.

    Raises:
        ValueError: this is not what `encode` made with this base.
    """
    size = elements * dtype.itemsize
    if stored.mode == Mode.BYTES:
        found = decompress(stored.second, size)
        return found if stored.planes == 1 else _from_planes(found.reshape(stored.planes, -1), dtype)
    if base is None:
        raise ValueError("a block refers to elements that the base does not have")
    if stored.mode == Mode.SAME:
        return base
    old = base.view(_unsigned(dtype))
    if stored.mode == Mode.STEPS:
        steps = _from_halves(decompress(stored.second, -(-elements // 2)), elements, dtype)
        return _moved(old, steps, dtype).view(np.uint8)
    changed = _positions(stored, elements)
    values = old.copy()
    values[changed] = _moved(old.take(changed), _zigzag(stored, len(changed), dtype), dtype)
    return values.view(np.uint8)


def _encode_steps(values: Bytes, base: Bytes, dtype: DType) -> Stored:
    new, old = values.view(_unsigned(dtype)), base.view(_unsigned(dtype))
    differs = new != old
    if np.count_nonzero(differs) * _DENSE >= len(new):
        of_all = _steps(new, old, dtype)
        if of_all.max() < _HALF_BYTE:
            return Stored(Mode.STEPS, 0, 0, b"", compress(_halves(of_all.astype(np.uint8)), _STEPS_LEVEL))
    changed = np.flatnonzero(differs)
    zigzag = _steps(new.take(changed), old.take(changed), dtype)
    largest = int(zigzag.max())
    mode, where = (
        (Mode.GAPS, _gaps(changed))
        if len(changed) * _SPARSE <= len(new)
        else (Mode.BITMAP, np.packbits(differs, bitorder="little"))
    )
    planes = 0 if largest <= _HALF_BYTE else -(-largest.bit_length() // 8)
    packed = _planes(zigzag.view(np.uint8), dtype)[:planes] if planes else _halves((zigzag - 1).astype(np.uint8))
    return Stored(mode, planes, len(where), compress(where, _STEPS_LEVEL), compress(packed, _STEPS_LEVEL))


def _positions(stored: Stored, elements: int) -> NDArray[np.int64]:
    """Return which elements of a block changed."""
    content = decompress(stored.first, stored.content)
    if stored.mode == Mode.BITMAP:
        return np.flatnonzero(np.unpackbits(content, count=elements, bitorder="little").view(bool))
    ends = np.cumsum(content, dtype=np.int64)
    is_change = content != _LONG
    changes: NDArray[np.int64] = ends + np.cumsum(is_change) - 1
    return changes if is_change.all() else changes[is_change]


def _gaps(changed: NDArray[np.int64]) -> Bytes:
    """Return the number of unchanged elements before each change; each `_LONG` stands for so many more."""
    longs, rest = np.divmod(np.diff(changed, prepend=-1) - 1, _LONG)
    gaps = np.full(len(changed) + int(longs.sum()), _LONG, np.uint8)
    gaps[np.cumsum(longs + 1) - 1] = rest
    return gaps


def _zigzag(stored: Stored, count: int, dtype: DType) -> NDArray[Any]:
    """Return the steps of the elements that changed."""
    unsigned = _unsigned(dtype)
    if stored.planes == 0:
        steps = _from_halves(decompress(stored.second, -(-count // 2)), count, dtype)
        steps += unsigned.type(1)
        return steps
    planes = decompress(stored.second, count * stored.planes).reshape(stored.planes, count)
    return planes[0].astype(unsigned) if stored.planes == 1 else _from_planes(planes, dtype).view(unsigned)


def _halves(steps: Bytes) -> Bytes:
    """Return two numbers in each byte: the first in its lower half."""
    # zstd spends more on matches in a long text of few letters than their letters would cost; pairs are more letters.
    halves = steps[0::2].copy()
    halves[: len(steps) // 2] |= steps[1::2] << 4
    return halves


def _from_halves(halves: Bytes, count: int, dtype: DType) -> NDArray[Any]:
    """Invert `_halves`."""
    steps: NDArray[Any] = np.empty(2 * len(halves), _unsigned(dtype))
    steps[0::2], steps[1::2] = halves & 15, halves >> 4
    return steps[:count]


def _steps(new: NDArray[Any], old: NDArray[Any], dtype: DType) -> NDArray[Any]:
    """Return by how many steps elements changed: 0, -1, 1, -2, 2 and so on as 0, 1, 2, 3, 4."""
    steps = _ordered(new, dtype) - _ordered(old, dtype)
    zigzag: NDArray[Any] = (steps << 1) ^ (steps.dtype.type(0) - (steps >> (8 * dtype.itemsize - 1)))
    return zigzag


def _moved(bits: NDArray[Any], zigzag: NDArray[Any], dtype: DType) -> NDArray[Any]:
    """Return the elements of `bits` after so many steps."""
    return _bits(_ordered(bits, dtype) + ((zigzag >> 1) ^ (zigzag.dtype.type(0) - (zigzag & 1))), dtype)


def _encode_bytes(values: Bytes, dtype: DType) -> Stored:
    plain = Stored(Mode.BYTES, 1, 0, b"", compress(values, _BYTES_LEVEL))
    if dtype.itemsize == 1:
        return plain
    split = Stored(Mode.BYTES, dtype.itemsize, 0, b"", compress(_planes(values, dtype), _BYTES_LEVEL))
    return min(plain, split, key=lambda stored: stored.nbytes)


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


def _unsigned(dtype: DType) -> np.dtype[Any]:
    return np.dtype(f"<u{dtype.itemsize}")


def _planes(values: Bytes, dtype: DType) -> Bytes:
    """Return [itemsize, elements]: the lowest byte of each element, then the next."""
    return np.ascontiguousarray(values.reshape(-1, dtype.itemsize).T)


def _from_planes(planes: Bytes, dtype: DType) -> Bytes:
    """Invert `_planes`, of which the last may be missing: they are zero."""
    values = np.zeros((planes.shape[1], dtype.itemsize), np.uint8)
    values[:, : len(planes)] = planes.T
    return values.reshape(-1)


def compress(content: Bytes | bytes, level: int) -> bytes:
    """Return a frame of zstd."""
    made: bytes = pyarrow.Codec("zstd", compression_level=level).compress(content, asbytes=True)
    return made


def decompress(content: bytes | memoryview, size: int) -> Bytes:
    """Return the `size` bytes of a frame of zstd; no more memory is taken, whatever the frame claims.

    Raises:
        ValueError: the frame is damaged, or has a different size.
    """
    try:
        return np.frombuffer(pyarrow.Codec("zstd").decompress(content, size), np.uint8)
    except OSError as error:
        raise ValueError(f"a frame of zstd is damaged ({error})") from error
