"""The C++ compiler of this machine, and what it compiles for."""

import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

from rammerge.errors import RammergeError

# Many times as long as a build takes: one that takes longer hangs.
BUILD_SECONDS = 120


def compiler() -> str | None:
    """Return the C++ compiler to use, or None if the machine has none."""
    return next(
        (found for name in (os.environ.get("CXX"), "g++", "clang++") if name and (found := shutil.which(name))), None
    )


def compile_library(path: Path, arguments: Sequence[str], check: Callable[[Path], None], text: str = "") -> None:
    """Compile a library and put it at `path`, whole or not at all.

    Args:
        path: where the library goes.
        arguments: of the compiler, without its output; a file `-` among them is `text`.
        check: called with the library before it is at `path`; an error of it is passed on.
        text: source code.

    Raises:
        RammergeError: there is no compiler, or it reports an error.
        OSError, subprocess.SubprocessError: it cannot run, or it hangs.
    """
    program = compiler()
    if program is None:
        raise RammergeError("no C++ compiler found (g++ or clang++)")
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".build-") as scratch:
        made = Path(scratch) / path.name
        _run([program, *arguments, "-o", str(made)], text)
        check(made)
        made.replace(path)


def _run(command: Sequence[str], text: str) -> None:
    done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=BUILD_SECONDS / 2)
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if "error" in line]
        raise RammergeError(f"{Path(command[0]).name}: {errors[0] if errors else done.stderr.strip()[-200:]}")


@cache
def processor() -> str:
    """Return text that identifies the processor's instruction set."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    flags = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    return f"{platform.machine()} {flags}"
