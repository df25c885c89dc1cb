"""Blocks of a patch: consecutive elements of a tensor, stored as their difference from the base's."""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

import numpy as np
import pyarrow
from numpy.typing import NDArray

# Elements of a block. A block is decoded whole, and this many stay in a core's second-level cache.
BLOCK = 1 << 16
# A gap of this many elements or more takes several bytes.
LONG = 255

Bytes = NDArray[np.uint8]


class Mode(IntEnum):
    """How a block is stored.

    Attributes:
        SAME: not at all, because it is the base's.
        BITMAP: a bit for each element, set where it changed, and the number of steps of each change.
        GAPS: for blocks of few changes: the number of elements between changes, and the steps of each change.
        BYTES: the bytes themselves.
        STEPS: the number of steps of every element, for blocks of many small changes.
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
