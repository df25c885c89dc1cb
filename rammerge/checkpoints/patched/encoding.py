"""Encoding a block in the mode that takes the fewest bytes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rammerge.checkpoints.patched.blocks import LONG, Bytes, Mode, Stored, compress
from rammerge.checkpoints.patched.steps import steps_between, unsigned
from rammerge.numerics.dtypes import DType

# Bitmaps and steps have too little structure for the higher levels, which search longer and find shorter matches that
# cost more than they save. Bytes are compressed at the level at which a whole file would be.
_STEPS_LEVEL, _BYTES_LEVEL = 1, 3
_SAMPLE_BYTES = 1 << 12
# Gaps take fewer bytes than a bitmap where at most one element in this many changed.
_SPARSE = 8
# Where at least one element in this many changed, steps of all take no more bytes than a bitmap and steps of some, and
# half the time to decode.
_DENSE = 2.5
# The largest number of steps, in zig-zag, for which half a byte is enough.
_HALF_BYTE = 16


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


def _encode_steps(values: Bytes, base: Bytes, dtype: DType) -> Stored:
    new, old = values.view(unsigned(dtype)), base.view(unsigned(dtype))
    differs = new != old
    if np.count_nonzero(differs) * _DENSE >= len(new):
        of_all = steps_between(new, old, dtype)
        if of_all.max() < _HALF_BYTE:
            return Stored(Mode.STEPS, 0, 0, b"", compress(_halves(of_all.astype(np.uint8)), _STEPS_LEVEL))
    changed = np.flatnonzero(differs)
    zigzag = steps_between(new.take(changed), old.take(changed), dtype)
    largest = int(zigzag.max())
    mode, where = (
        (Mode.GAPS, _gaps(changed))
        if len(changed) * _SPARSE <= len(new)
        else (Mode.BITMAP, np.packbits(differs, bitorder="little"))
    )
    planes = 0 if largest <= _HALF_BYTE else -(-largest.bit_length() // 8)
    packed = _planes(zigzag.view(np.uint8), dtype)[:planes] if planes else _halves((zigzag - 1).astype(np.uint8))
    return Stored(mode, planes, len(where), compress(where, _STEPS_LEVEL), compress(packed, _STEPS_LEVEL))


def _gaps(changed: NDArray[np.int64]) -> Bytes:
    """Return the number of unchanged elements before each change; each `LONG` adds that number to the next."""
    longs, rest = np.divmod(np.diff(changed, prepend=-1) - 1, LONG)
    gaps = np.full(len(changed) + int(longs.sum()), LONG, np.uint8)
    gaps[np.cumsum(longs + 1) - 1] = rest
    return gaps


def _halves(steps: Bytes) -> Bytes:
    """Return two numbers in each byte: the first in its lower half."""
    # zstd spends more on matches in a long text of few letters than their letters would cost; pairs are more letters.
    halves = steps[0::2].copy()
    halves[: len(steps) // 2] |= steps[1::2] << 4
    return halves


def _encode_bytes(values: Bytes, dtype: DType) -> Stored:
    plain = Stored(Mode.BYTES, 1, 0, b"", compress(values, _BYTES_LEVEL))
    if dtype.itemsize == 1:
        return plain
    split = Stored(Mode.BYTES, dtype.itemsize, 0, b"", compress(_planes(values, dtype), _BYTES_LEVEL))
    return min(plain, split, key=lambda stored: stored.nbytes)


def _planes(values: Bytes, dtype: DType) -> Bytes:
    """Return [itemsize, elements]: the lowest byte of each element, then the next."""
    return np.ascontiguousarray(values.reshape(-1, dtype.itemsize).T)
