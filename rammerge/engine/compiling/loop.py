"""The loop of tiles.cpp, which reads a unit of every input tile by tile and runs compiled block functions on each."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rammerge.engine.blocks import Numbers
from rammerge.engine.buffers import address
from rammerge.engine.input import refuse_short
from rammerge.numerics.dtypes import DType

if TYPE_CHECKING:
    from rammerge.engine.histogram import Histogram
    from rammerge.engine.sums import GrainSums

_DONE, _UNREADABLE, _SHORT = range(3)
_IN_MEMORY = -1


@dataclass(frozen=True)
class Source:
    """Where a unit of one input is stored.

    Attributes:
        dtype: of its elements.
        address: where its elements are in memory; for a file, where its tiles are read to.
        file: the file that has them, if they are not in memory.
        descriptor: of the open file.
        offset: of the unit in the file.
    """

    dtype: DType
    address: int
    file: Path = Path()
    descriptor: int = _IN_MEMORY
    offset: int = 0


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
        ("others", ctypes.c_void_p),
        ("filled", ctypes.c_void_p),
        ("room", ctypes.c_int64),
        ("span", ctypes.c_uint32),
        ("shift", ctypes.c_int32),
    )


class _Call(ctypes.Structure):
    _fields_ = (
        ("block", ctypes.c_void_p),
        ("results", ctypes.POINTER(ctypes.c_void_p)),
        ("itemsizes", ctypes.POINTER(ctypes.c_int64)),
        ("result_count", ctypes.c_int64),
        ("numbers", ctypes.POINTER(_Numbers)),
        ("histogram", ctypes.POINTER(_Histogram)),
        ("scratch", ctypes.c_void_p),
        ("counts", ctypes.POINTER(ctypes.c_double)),
        ("totals", ctypes.POINTER(ctypes.c_double)),
    )


class _Span(ctypes.Structure):
    _fields_ = (
        ("start", ctypes.c_int64),
        ("size", ctypes.c_int64),
        ("row", ctypes.c_int64),
        ("wanted_from", ctypes.c_int64),
        ("wanted_to", ctypes.c_int64),
    )


class Form:
    """A compiled block function, with a loop that can run others too.

    Attributes:
        ranked: how many numbers of each element it ranks in their rows.
    """

    def __init__(self, path: Path, results: Sequence[DType]) -> None:
        """Load the function at `path`, which returns tensors of the dtypes `results`.

        Raises:
            OSError, AttributeError: it cannot be loaded here.
        """
        library = ctypes.CDLL(str(path), use_errno=True)
        self.run_tiles = library.rammerge_run_tiles
        self.block = ctypes.cast(library.rammerge_block, ctypes.c_void_p)
        self.ranked = ctypes.c_int64.in_dll(library, "rammerge_ranked").value
        self.itemsizes = _array(ctypes.c_int64, [dtype.itemsize for dtype in results])


class FormCall:
    """A compiled function, and what it computes with. It runs on the tiles of a unit, one after the other."""

    def __init__(
        self,
        form: Form,
        numbers: Numbers,
        counts: int,
        results: Sequence[memoryview],
        histogram: Histogram | None = None,
        sums: GrainSums | None = None,
        scratch: memoryview | None = None,
        row: int = 1,
    ) -> None:
        """Prepare a call of `form`, which makes `counts` counts.

        Without a histogram the function's tensors fill `results`, which have the unit's elements each. With a histogram
        they are counted in it, and `results`, with a tile's elements each, are overwritten by every tile. Tensors of
        float64 are summed in `sums`; tiles are then multiples of a grain. A form that ranks needs tiles of whole rows
        of `row` elements, and `scratch_bytes` of scratch.
        """
        self.form, self.row = form, row
        self._kept = (results, histogram, sums, scratch)  # whose memory `struct` has the addresses of
        self._counted = (ctypes.c_double * counts)()
        self.struct = _Call(
            form.block,
            _array(ctypes.c_void_p, [address(memory) for memory in results]),
            form.itemsizes,
            len(results),
            ctypes.pointer(_numbers(numbers)),
            None if histogram is None else ctypes.pointer(_histogram(histogram)),
            None if scratch is None else address(scratch),
            self._counted,
            None if sums is None else sums.memory,
        )

    @property
    def counts(self) -> list[float]:
        """The function's counts, summed over the tiles so far."""
        return list(self._counted)


def scratch_bytes(ranked: int, tile: int, row: int) -> int:
    """Return what a form needs to rank numbers in tiles of whole rows."""
    return 4 * (ranked * tile + 4 * row)


def run_tiles(
    sources: Sequence[Source],
    calls: Sequence[FormCall],
    start: int,
    elements: int,
    tile: int,
    wanted: slice | None = None,
) -> None:
    """Run functions on the first `elements` elements of the sources, `tile` elements at a time, which are read once.

    Args:
        sources: the inputs.
        calls: one function or more. Each goes on where it stopped.
        start: the index of the first element in its tensor.
        elements: how many elements to read.
        tile: how many elements are computed together.
        wanted: the elements whose results are wanted, counted from the first; None for all.

    Raises:
        RammergeError: a file is too short.
        OSError: a file could not be read.
    """
    read = _array(_Source, [_Source(each.offset, each.dtype.itemsize, each.descriptor) for each in sources])
    memory = _array(ctypes.c_void_p, [each.address for each in sources])
    wanted = wanted or slice(0, elements)
    span = _Span(start, elements, max(call.row for call in calls), wanted.start, wanted.stop)
    structs, failed = _array(ctypes.POINTER(_Call), [ctypes.pointer(call.struct) for call in calls]), ctypes.c_int64()
    status = calls[0].form.run_tiles(
        *(read, memory, (ctypes.c_void_p * len(sources))(), ctypes.c_int64(len(sources))),
        *(structs, ctypes.c_int64(len(calls))),
        *(ctypes.byref(span), ctypes.c_int64(tile), ctypes.byref(failed)),
    )
    if status == _DONE:
        return
    file = sources[failed.value].file
    if status == _SHORT:
        raise refuse_short(file)
    number = ctypes.get_errno()
    raise OSError(number, os.strerror(number), str(file))


def _numbers(numbers: Numbers) -> _Numbers:
    coefficients = [number for row in numbers.coefficients for number in row]
    return _Numbers(_array(ctypes.c_float, coefficients), _array(ctypes.c_int64, numbers.seeds), numbers.threshold)


def _histogram(histogram: Histogram) -> _Histogram:
    firsts = _array(ctypes.c_uint32, histogram.firsts)
    arrays = (each.ctypes.data for each in (histogram.lanes, histogram.others, histogram.filled))
    return _Histogram(firsts, *arrays, histogram.others.shape[1], histogram.span, histogram.shift)


def _array(kind: Any, values: Sequence[Any]) -> Any:
    return (kind * len(values))(*values)
