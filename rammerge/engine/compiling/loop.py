"""The loop of tiles.cpp, which reads a unit of every input tile by tile and runs a compiled block function on each."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rammerge.engine.blocks import Numbers
from rammerge.engine.buffers import Buffer, address
from rammerge.engine.input import refuse_short
from rammerge.numerics.dtypes import DType

if TYPE_CHECKING:
    from rammerge.engine.histogram import Histogram
    from rammerge.engine.sums import GrainSums

_DONE, _UNREADABLE, _SHORT = range(3)


@dataclass(frozen=True)
class Source:
    """Where a unit of one input is stored: elements of `dtype` from `offset` of an open file, read into `buffer`."""

    file: Path
    descriptor: int
    offset: int
    dtype: DType
    buffer: Buffer


class _Source(ctypes.Structure):
    _fields_ = (("offset", ctypes.c_int64), ("itemsize", ctypes.c_int64), ("descriptor", ctypes.c_int32))


class _Numbers(ctypes.Structure):
    # Pointers, because unlike addresses they keep the arrays alive.
    _fields_ = (
        ("coefficients", ctypes.POINTER(ctypes.c_float)),
        ("seeds", ctypes.POINTER(ctypes.c_int64)),
        ("threshold", ctypes.c_float),
    )


class _Histogram(ctypes.Structure):
    _fields_ = (
        ("firsts", ctypes.POINTER(ctypes.c_uint32)),
        ("counts", ctypes.c_void_p),
        ("span", ctypes.c_uint32),
        ("shift", ctypes.c_int32),
    )


class TileLoop:
    """A compiled block function with the loop around it. The interpreter lock is released while it runs."""

    def __init__(self, path: Path, results: Sequence[DType]) -> None:
        """Load the function at `path`, which returns tensors of the dtypes `results`.

        Raises:
            OSError, AttributeError: it cannot be loaded here.
        """
        self._run = ctypes.CDLL(str(path), use_errno=True).rammerge_run_tiles
        self._itemsizes = _array(ctypes.c_int64, [dtype.itemsize for dtype in results])

    def __call__(
        self,
        sources: Sequence[Source],
        numbers: Numbers,
        elements: int,
        tile: int,
        counts: int,
        results: Sequence[memoryview],
        histogram: Histogram | None = None,
        sums: GrainSums | None = None,
    ) -> list[float]:
        """Run the function on the first `elements` elements of the sources, `tile` elements at a time.

        Without a histogram the function's tensors fill `results`, which have `elements` elements each. With a histogram
        they are counted in it, and `results`, with `tile` elements each, are overwritten by every tile. Tensors of
        float64 are summed in `sums`; `tile` is then a multiple of a grain.

        Returns:
            The function's `counts` counts, summed.

        Raises:
            RammergeError: a file is too short.
            OSError: a file could not be read.
        """
        read = (_Source * len(sources))(
            *(_Source(each.offset, each.dtype.itemsize, each.descriptor) for each in sources)
        )
        inputs = _array(ctypes.c_void_p, [source.buffer.address for source in sources])
        filled = _array(ctypes.c_void_p, [address(memory) for memory in results])
        counted, failed = (ctypes.c_double * counts)(), ctypes.c_int64()
        status = self._run(
            *(read, inputs, ctypes.c_int64(len(sources))),
            *(filled, self._itemsizes, ctypes.c_int64(len(results)), ctypes.byref(_numbers(numbers))),
            *(ctypes.c_int64(numbers.start), ctypes.c_int64(elements), ctypes.c_int64(tile)),
            *(counted, _histogram(histogram), None if sums is None else sums.memory, ctypes.byref(failed)),
        )
        if status == _DONE:
            return list(counted)
        file = sources[failed.value].file
        if status == _SHORT:
            raise refuse_short(file)
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(file))


def _numbers(numbers: Numbers) -> _Numbers:
    coefficients = [number for row in numbers.coefficients for number in row]
    return _Numbers(_array(ctypes.c_float, coefficients), _array(ctypes.c_int64, numbers.seeds), numbers.threshold)


def _histogram(histogram: Histogram | None) -> Any:
    if histogram is None:
        return None
    firsts = _array(ctypes.c_uint32, histogram.firsts)
    return ctypes.byref(_Histogram(firsts, histogram.lanes.ctypes.data, histogram.span, histogram.shift))


def _array(kind: Any, values: Sequence[Any]) -> Any:
    return (kind * len(values))(*values)
