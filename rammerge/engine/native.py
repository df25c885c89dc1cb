"""The loop of tiles.cpp: read a unit of every input tile by tile and run a compiled block function on each."""

import ctypes
import hashlib
import os
import platform
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rammerge.engine.blocks import Arguments
from rammerge.engine.histogram import Histogram
from rammerge.engine.stream import Buffer, refuse_short
from rammerge.home import home

_SOURCE = Path(__file__).with_name("tiles.cpp")
_DONE, _FAILED, _UNREADABLE, _SHORT = range(4)


@dataclass(frozen=True)
class Source:
    """Where a unit of one input is read from, by way of `buffer`: elements of `dtype` from `offset` of an open file."""

    file: Path
    descriptor: int
    offset: int
    dtype: torch.dtype
    buffer: Buffer


class _Source(ctypes.Structure):
    _fields_ = (
        ("buffer", ctypes.c_void_p),
        ("offset", ctypes.c_int64),
        ("itemsize", ctypes.c_int64),
        ("descriptor", ctypes.c_int32),
        ("dtype", ctypes.c_int32),
    )


class _Constant(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("rank", ctypes.c_int64),
        ("sizes", ctypes.c_int64 * 2),
        ("dtype", ctypes.c_int32),
    )


class _Result(ctypes.Structure):
    _fields_ = (("data", ctypes.c_void_p), ("itemsize", ctypes.c_int64), ("dtype", ctypes.c_int32))


class _Histogram(ctypes.Structure):
    _fields_ = (
        ("firsts", ctypes.POINTER(ctypes.c_uint32)),  # which, unlike an address, keeps the array alive
        ("counts", ctypes.c_void_p),
        ("span", ctypes.c_uint32),
        ("shift", ctypes.c_int32),
    )


def loop_path() -> Path:
    """Return where the compiled loop is kept; its source, torch and the kind of machine are in the name."""
    digest = hashlib.sha256(_SOURCE.read_bytes() + f"{torch.__version__} {platform.machine()}".encode())
    return home() / "kernels" / f"tiles-{digest.hexdigest()[:32]}.so"


def build_loop(compiler: str, path: Path) -> None:
    """Compile the loop to `path`, whole or not at all.

    Raises:
        subprocess.CalledProcessError: it does not compile.
    """
    root = Path(torch.__file__).parent
    part = path.with_name(f".{path.name}.{os.getpid()}")
    flags = ["-O3", "-std=c++17", "-shared", "-fPIC", f"-I{root / 'include'}", f"-L{root / 'lib'}", "-ltorch_cpu"]
    try:
        subprocess.run([compiler, str(_SOURCE), *flags, "-o", str(part)], check=True)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


class TileLoop:
    """A compiled block function with the loop around it, called by its C interface.

    Torch's own binding of such a function holds the interpreter lock while it runs.
    """

    def __init__(self, path: Path, threads: int, *, in_place: bool) -> None:
        """Load the function at `path`, to be run by so many threads at a time.

        It takes its results and fills them if it is `in_place`, else it returns them.

        Raises:
            OSError, AttributeError, RuntimeError: it or the loop cannot be loaded here.
        """
        library = ctypes.CDLL(str(path))
        create = library.AOTInductorModelContainerCreateWithDevice
        create.argtypes = [ctypes.POINTER(ctypes.c_void_p), ctypes.c_size_t, ctypes.c_char_p, ctypes.c_char_p]
        self._container, self._in_place = ctypes.c_void_p(), ctypes.c_int32(in_place)
        if create(ctypes.byref(self._container), threads, b"cpu", None):
            raise RuntimeError(f"{path} cannot be set up")
        self._function = ctypes.cast(library.AOTInductorModelContainerRun, ctypes.c_void_p)
        self._loop = ctypes.CDLL(str(loop_path()), use_errno=True)

    def __call__(
        self,
        sources: Sequence[Source],
        arguments: Arguments,
        start: int,
        elements: int,
        tile: int,
        counts: int,
        results: Sequence[Tensor],
        histogram: Histogram | None = None,
    ) -> list[float]:
        """Run on the first `elements` of the sources, which are from `start` on in their tensor, about `tile` at once.

        The function's tensors fill `results`, of `elements` elements each; or if there is a histogram, they are counted
        in it, and `results` of `tile` elements each are overwritten again and again.

        Returns:
            The function's `counts` counts, summed.

        Raises:
            RammergeError: a file ended before.
            OSError: a file could not be read.
            RuntimeError: the function failed.
        """
        size = -(-elements // -(-elements // tile))  # evenly: a remainder may be too short for compiled code
        given = (_Source * len(sources))(*(self._source(source) for source in sources))
        small = (arguments.coefficients, arguments.threshold, arguments.seeds)
        constants = (_Constant * len(small))(*(self._constant(tensor) for tensor in small))
        filled = (_Result * len(results))(*(self._result(tensor) for tensor in results))
        sums, failed = (ctypes.c_double * counts)(), ctypes.c_int64()
        status = self._loop.rammerge_run_tiles(
            *(self._container, self._function, given, ctypes.c_int64(len(given)), constants),
            *(ctypes.c_int64(len(constants)), filled, ctypes.c_int64(len(filled))),
            *(ctypes.c_int64(number) for number in (start, elements, size)),
            *(sums, ctypes.c_int64(counts), self._histogram(histogram), self._in_place, ctypes.byref(failed)),
        )
        if status == _DONE:
            return list(sums)
        if status == _FAILED:
            raise RuntimeError("a compiled function failed")
        file = sources[failed.value].file
        if status == _SHORT:
            raise refuse_short(file)
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(file))

    def _result(self, tensor: Tensor) -> _Result:
        return _Result(tensor.data_ptr(), tensor.dtype.itemsize, _code(self._loop, tensor.dtype))

    def _source(self, source: Source) -> _Source:
        code = _code(self._loop, source.dtype)
        return _Source(source.buffer.address, source.offset, source.dtype.itemsize, source.descriptor, code)

    def _histogram(self, histogram: Histogram | None) -> Any:
        if histogram is None:
            return None
        firsts = (ctypes.c_uint32 * len(histogram.firsts))(*histogram.firsts)
        return ctypes.byref(_Histogram(firsts, histogram.lanes.data_ptr(), histogram.span, histogram.shift))

    def _constant(self, tensor: Tensor) -> _Constant:
        code = _code(self._loop, tensor.dtype)
        return _Constant(tensor.data_ptr(), tensor.dim(), (ctypes.c_int64 * 2)(*tensor.shape), code)


@cache
def _code(loop: ctypes.CDLL, dtype: torch.dtype) -> int:
    return int(getattr(loop, f"aoti_torch_dtype_{str(dtype).removeprefix('torch.')}")())
