"""Block functions in compiled form, kept on disk: fused into one loop, tens of times faster than eager code on a CPU.

A form is made once for each machine, in a separate process (rammerge.engine.compiling.build). If the merge that started
the process ends first, the process goes on, and the next merge uses the form. A form gives the bytes of eager code and
loads without torch.
"""

import os
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

from rammerge.engine.compiling.loop import Form
from rammerge.engine.compiling.signature import Signature
from rammerge.errors import RammergeError
from rammerge.system.toolchain import BUILD_SECONDS, compiler

_TALLY_ELEMENTS = 1 << 20
_builds: dict[Path, "Build"] = {}
_lock = threading.Lock()


def load(signature: Signature) -> Form | None:
    """Return the compiled form if it is on disk and can be loaded here.

    Raises:
        RammergeError: the form has no name under which it could be kept.
    """
    path = signature.path()
    if not path.is_file():
        return None
    try:
        return Form(path, signature.results())
    except (OSError, AttributeError):
        path.unlink(missing_ok=True)
        return None


class Build:
    """A process that makes a compiled form. It goes on however this process ends."""

    def __init__(self, signature: Signature, path: Path) -> None:
        """Start the process.

        Raises:
            OSError: it cannot be started.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "rammerge.engine.compiling.build", signature.describe(), str(path)],
            # It imports from the same places as this process.
            env={**os.environ, "PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path)), "OMP_NUM_THREADS": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )

    @property
    def ended(self) -> bool:
        """Whether the process has ended."""
        return self._process.poll() is not None

    def wait(self) -> None:
        """Wait until the form is on the disk.

        Raises:
            RammergeError: the process failed or took too long.
        """
        with self._lock:  # several threads may wait
            try:
                _, errors = self._process.communicate(timeout=BUILD_SECONDS)
            except subprocess.TimeoutExpired as error:
                raise RammergeError(f"compiling takes more than {BUILD_SECONDS} s") from error
        if self._process.returncode:
            lines = errors.decode(errors="replace").strip().splitlines()
            raise RammergeError(f"compiling failed ({lines[-1] if lines else 'for no given reason'})")


def start_build(signature: Signature) -> Build:
    """Start to make a compiled form, unless this process is making it already.

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
    """Return how many elements all merges so far computed eagerly for want of this compiled form."""
    try:
        return _tally(signature).stat().st_size * _TALLY_ELEMENTS
    except FileNotFoundError:
        return 0


def count_eager(signature: Signature, elements: int) -> None:
    """Add to the count of `eager_elements`."""
    with suppress(OSError, RammergeError):
        path = _tally(signature)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as file:  # a byte for each 2**20: what several processes append adds up
            file.write(b"." * -(-elements // _TALLY_ELEMENTS))


def _tally(signature: Signature) -> Path:
    return signature.path().with_suffix(".eager")
