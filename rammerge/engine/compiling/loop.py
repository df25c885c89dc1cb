"""The loop of tiles.cpp: read a unit of every input tile by tile and run a compiled block function on each."""

from __future__ import annotations

import ctypes
import hashlib
import importlib
import importlib.util
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rammerge.engine.blocks import Numbers
from rammerge.engine.buffers import Buffer, address
from rammerge.engine.input import refuse_short
from rammerge.numerics.dtypes import DTYPES, DType
from rammerge.system.home import home

if TYPE_CHECKING:
    from rammerge.engine.histogram import Histogram

# The shortest length that compiled functions take; what is shorter is filled up with zeros, which count as nothing.
LEAST_ELEMENTS = 1024
_SOURCE = Path(__file__).with_name("tiles.cpp")
_DONE, _FAILED, _UNREADABLE, _SHORT = range(4)


@dataclass(frozen=True)
class Source:
    """Where a unit of one input is read from, by way of `buffer`: elements of `dtype` from `offset` of an open file."""

    file: Path
    descriptor: int
    offset: int
    dtype: DType
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
    digest = hashlib.sha256(_SOURCE.read_bytes() + f"{version('torch')} {platform.machine()}".encode())
    return home() / "kernels" / f"tiles-{digest.hexdigest()[:32]}.so"


def build_loop(compiler: str, path: Path) -> None:
    """Compile the loop to `path`, whole or not at all.

    Raises:
        subprocess.CalledProcessError: it does not compile.
    """
    root = _torch_directory()
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

    def __init__(self, path: Path, results: Sequence[DType], threads: int, *, in_place: bool) -> None:
        """Load the function at `path`, which makes tensors of the dtypes `results`, for so many threads at a time.

        It takes its results and fills them if it is `in_place`, else it returns them.

        Raises:
            OSError, AttributeError, RuntimeError: it or the loop cannot be loaded here.
        """
        _load_torch_library()
        library = ctypes.CDLL(str(path))
        create = library.AOTInductorModelContainerCreateWithDevice
        create.argtypes = [ctypes.POINTER(ctypes.c_void_p), ctypes.c_size_t, ctypes.c_char_p, ctypes.c_char_p]
        self._container, self._in_place = ctypes.c_void_p(), ctypes.c_int32(in_place)
        if create(ctypes.byref(self._container), threads, b"cpu", None):
            raise RuntimeError(f"{path} cannot be set up")
        self._function = ctypes.cast(library.AOTInductorModelContainerRun, ctypes.c_void_p)
        self._loop = ctypes.CDLL(str(loop_path()), use_errno=True)
        self._results = tuple(results)

    def __call__(
        self,
        sources: Sequence[Source],
        numbers: Numbers,
        elements: int,
        tile: int,
        counts: int,
        results: Sequence[memoryview],
        histogram: Histogram | None = None,
    ) -> list[float]:
        """Run on the first `elements` of the sources, `tile` at once.

        The function's tensors fill `results`, of `elements` elements each; or if there is a histogram, they are counted
        in it, and `results` of `tile` elements each are overwritten again and again. Buffers have room for
        `LEAST_ELEMENTS`, and for so many more the results of a function that is in place.

        Returns:
            The function's `counts` counts, summed.

        Raises:
            RammergeError: a file ended before.
            OSError: a file could not be read.
            RuntimeError: the function failed.
        """
        given = (_Source * len(sources))(*(self._source(source) for source in sources))
        arrays = _arrays(numbers)
        constants = (_Constant * len(arrays))(*(self._constant(*array) for array in arrays))
        filled = (_Result * len(results))(*map(self._result, results, self._results))
        sums, failed = (ctypes.c_double * counts)(), ctypes.c_int64()
        status = self._loop.rammerge_run_tiles(
            *(self._container, self._function, given, ctypes.c_int64(len(given)), constants),
            *(ctypes.c_int64(len(constants)), filled, ctypes.c_int64(len(filled))),
            *(ctypes.c_int64(number) for number in (numbers.start, elements, tile, LEAST_ELEMENTS)),
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

    def _result(self, memory: memoryview, dtype: DType) -> _Result:
        return _Result(address(memory), dtype.itemsize, _code(self._loop, dtype))

    def _source(self, source: Source) -> _Source:
        code = _code(self._loop, source.dtype)
        return _Source(source.buffer.address, source.offset, source.dtype.itemsize, source.descriptor, code)

    def _histogram(self, histogram: Histogram | None) -> Any:
        if histogram is None:
            return None
        firsts = (ctypes.c_uint32 * len(histogram.firsts))(*histogram.firsts)
        return ctypes.byref(_Histogram(firsts, histogram.lanes.ctypes.data, histogram.span, histogram.shift))

    def _constant(self, array: ctypes.Array[Any], shape: tuple[int, ...], dtype: DType) -> _Constant:
        sizes = (ctypes.c_int64 * 2)(*shape)
        return _Constant(ctypes.addressof(array), len(shape), sizes, _code(self._loop, dtype))


def _arrays(numbers: Numbers) -> list[tuple[ctypes.Array[Any], tuple[int, ...], DType]]:
    """Return what the tensors of `Numbers.tensors`, but for `start`, are made of."""
    rows, agents, seeds = len(numbers.coefficients), len(numbers.coefficients[0]), len(numbers.seeds)
    coefficients = (ctypes.c_float * (rows * agents))(*(number for row in numbers.coefficients for number in row))
    return [
        (coefficients, (rows, agents), DTYPES["float32"]),
        ((ctypes.c_float * 1)(numbers.threshold), (), DTYPES["float32"]),
        ((ctypes.c_int64 * seeds)(*numbers.seeds), (seeds,), DTYPES["int64"]),
    ]


@cache
def _code(loop: ctypes.CDLL, dtype: DType) -> int:
    return int(getattr(loop, f"aoti_torch_dtype_{dtype.name}")())


def _torch_directory() -> Path:
    spec = importlib.util.find_spec("torch")
    assert spec is not None, "torch is a dependency"
    assert spec.origin is not None, "torch is a package with a file"
    return Path(spec.origin).parent


@cache
def _load_torch_library() -> None:
    """Load the libraries that compiled functions are linked to, in a fifth of the time that torch takes.

    With CUDA's builds that includes CUDA's, which even functions for the CPU may be linked to.
    """
    try:
        if "torch" not in sys.modules:
            ctypes.CDLL(str(_torch_directory() / "lib" / "libtorch.so"))
    except OSError:  # a build whose own libraries torch has to find first
        importlib.import_module("torch")
