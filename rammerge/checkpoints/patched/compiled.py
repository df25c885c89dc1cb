"""The decoder in compiled form (blocks.cpp): several times as fast as numpy, and without the interpreter's lock.

A form for each kind of element is compiled once for each machine, where much is to be decoded, and kept. Without a C++
compiler or libzstd, numpy decodes.
"""

from __future__ import annotations

import ctypes
import hashlib
import subprocess
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import numpy as np

from rammerge.checkpoints.patched.blocks import BLOCK
from rammerge.checkpoints.patched.container import ROW
from rammerge.checkpoints.patched.decoding import Run
from rammerge.checkpoints.patched.encoding import encode
from rammerge.checkpoints.patched.steps import unsigned
from rammerge.errors import RammergeError
from rammerge.numerics.dtypes import DType
from rammerge.system.home import home
from rammerge.system.toolchain import compile_library, processor

# Numpy takes about as long for this many elements as the compiler.
COMPILE_FROM_ELEMENTS = 1 << 27

_SOURCE = Path(__file__).with_name("blocks.cpp")
_FLAGS = ("-O3", "-march=native", "-std=c++17", "-fwrapv", "-shared", "-fPIC", "-w", f"-DBLOCK={BLOCK}")
# By its file, because its name without a version is only there for developers.
_ZSTD = "-l:libzstd.so.1"
_FAULTS = {
    1: "a frame of zstd is damaged",
    2: "a block refers to elements that the base does not have",
    3: "a change lies outside its block",
}


class Decoder:
    """A compiled form. It does what `decode_run` does."""

    def __init__(self, path: Path) -> None:
        """Load the form at `path`.

        Raises:
            OSError, AttributeError: it cannot be loaded here.
        """
        self._decode = ctypes.CDLL(str(path)).rammerge_decode_blocks
        self._decode.argtypes = [ctypes.c_void_p] * 3 + [ctypes.c_int64] * 3 + [ctypes.c_int32]

    def __call__(self, run: Run, skipped: int, memory: memoryview) -> None:
        """See `decode_run`."""
        rows, out = np.ascontiguousarray(run.rows), np.frombuffer(memory, np.uint8)
        status = self._decode(
            *(rows.ctypes.data, run.frames.ctypes.data, out.ctypes.data),
            *(skipped, len(memory) // run.dtype.itemsize, run.elements, run.has_base),
        )
        if status:
            raise ValueError(_FAULTS[status])


# By width and whether they are floats.
_loaded: dict[tuple[int, bool], Decoder] = {}
_lock = threading.Lock()


def decoder(dtype: DType) -> Decoder | None:
    """Return the compiled form for elements of `dtype`, if `prepare` found it worth while."""
    return _loaded.get((dtype.itemsize, dtype.is_floating_point))


def prepare(elements: Mapping[DType, int]) -> None:
    """Load the compiled forms that exist, and make those for dtypes with many elements to decode."""
    for dtype, count in elements.items():
        with _lock, suppress(RammergeError, OSError, AttributeError, subprocess.SubprocessError):
            path = _path(dtype)
            if decoder(dtype) is None and (path.exists() or count >= COMPILE_FROM_ELEMENTS):
                _loaded[dtype.itemsize, dtype.is_floating_point] = load(dtype)


def load(dtype: DType) -> Decoder:
    """Return the compiled form for elements of `dtype`. It is made if it is not there.

    Raises:
        RammergeError, OSError, AttributeError, subprocess.SubprocessError: it cannot be made here.
    """
    path = _path(dtype)
    if not path.exists():
        arguments = [*_FLAGS, *_kind(dtype), str(_SOURCE), _ZSTD]
        compile_library(path, arguments, lambda made: check(Decoder(made), dtype))
    return Decoder(path)


def check(decode: Decoder, dtype: DType) -> None:
    """Check that a compiled form decodes blocks of every mode.

    Raises:
        RammergeError: it does not.
    """
    chances, count = np.random.default_rng(0), 999
    base = chances.integers(0, 256, count * dtype.itemsize, np.uint8)
    for density, most in ((0.0, 1), (0.05, 3), (0.2, 3), (0.2, 99), (0.6, 3), (1.0, 127)):
        steps = chances.integers(-most, most + 1, count) * (chances.random(count) < density)
        values = (base.view(unsigned(dtype)) + steps.astype(unsigned(dtype))).view(np.uint8)
        stored, found = encode(values, base, dtype), base.copy()
        rows = np.array([(*stored[:3], len(stored.first), len(stored.second))], ROW)
        frames = np.array(bytearray(stored.first) + bytearray(stored.second), np.uint8)
        decode(Run(rows, frames, count, dtype, True), 0, found.data)
        if not np.array_equal(found, values):
            raise RammergeError("the compiled decoder gives different bytes")


def _path(dtype: DType) -> Path:
    code = "\0".join((*_FLAGS, *_kind(dtype), _SOURCE.read_text(encoding="utf-8"), processor()))
    return home() / "kernels" / f"patch-{hashlib.sha256(code.encode()).hexdigest()[:32]}.so"


def _kind(dtype: DType) -> tuple[str, str]:
    return f"-DELEMENT=uint{8 * dtype.itemsize}_t", f"-DIS_FLOAT={int(dtype.is_floating_point)}"
