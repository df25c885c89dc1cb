"""Block functions in compiled form, kept on disk: fused into one loop, tens of times faster than eager code on a CPU.

A form is made once for a machine, by a process of its own (rammerge.engine.compiling.build) that goes on to the end for
the next merge even if the one that began it ends first. It gives the bytes of eager code, and loads without torch.
"""

import os
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

from rammerge.engine.compiling.loop import TileLoop
from rammerge.engine.compiling.signature import Signature
from rammerge.engine.compiling.toolchain import BUILD_SECONDS, compiler
from rammerge.errors import RammergeError

_TALLY_ELEMENTS = 1 << 20
_builds: dict[Path, "Build"] = {}
_lock = threading.Lock()


def load(signature: Signature) -> TileLoop | None:
    """Return the compiled form when it is on disk and loads here.

    Raises:
        RammergeError: the signature has no name to keep it under.
    """
    path = signature.path()
    if not path.is_file():
        return None
    try:
        return TileLoop(path, signature.results())
    except (OSError, AttributeError):
        path.unlink(missing_ok=True)
        return None


class Build:
    """A compiled form in the making, by a process that nothing which ends this one ends."""

    def __init__(self, signature: Signature, path: Path) -> None:
        """Begin.

        Raises:
            OSError: it cannot be.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "rammerge.engine.compiling.build", signature.describe(), str(path)],
            # What this process can import, the other can.
            env={**os.environ, "PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path)), "OMP_NUM_THREADS": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )

    @property
    def ended(self) -> bool:
        """Whether there is no more to wait for."""
        return self._process.poll() is not None

    def wait(self) -> None:
        """Wait until the form is on the disk.

        Raises:
            RammergeError: it failed, or takes too long.
        """
        with self._lock:  # several may wait for it
            try:
                _, errors = self._process.communicate(timeout=BUILD_SECONDS)
            except subprocess.TimeoutExpired as error:
                raise RammergeError(f"compiling takes more than {BUILD_SECONDS} s") from error
        if self._process.returncode:
            lines = errors.decode(errors="replace").strip().splitlines()
            raise RammergeError(f"compiling failed ({lines[-1] if lines else 'for no given reason'})")


def start_build(signature: Signature) -> Build:
    """Begin to make a compiled form, unless this process has begun and it is not done.

    Raises:
        RammergeError: there is no compiler, or the signature has no name.
        OSError: no process can be started, or `RAMMERGE_HOME` cannot be written.
    """
    if compiler() is None:
        raise RammergeError("no C++ compiler found (g++ or clang++)")
    path = signature.path()
    with _lock:
        if path not in _builds or _builds[path].ended:
            _builds[path] = Build(signature, path)
        return _builds[path]


def eager_elements(signature: Signature) -> int:
    """Return how many elements were computed eagerly so far, by all merges, where a compiled form would have served."""
    try:
        return _tally(signature).stat().st_size * _TALLY_ELEMENTS
    except FileNotFoundError:
        return 0


def count_eager(signature: Signature, elements: int) -> None:
    """Add to the count of `eager_elements`."""
    with suppress(OSError, RammergeError):
        path = _tally(signature)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as file:  # a byte for so many elements: what several processes append adds up
            file.write(b"." * -(-elements // _TALLY_ELEMENTS))


def _tally(signature: Signature) -> Path:
    return signature.path().with_suffix(".eager")
