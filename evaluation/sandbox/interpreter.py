"""The Python interpreter that programs run with, and the files that it needs."""

import os
import sys
import sysconfig
from dataclasses import dataclass
from functools import cache
from pathlib import Path


@dataclass(frozen=True)
class Interpreter:
    """An interpreter without installed packages.

    Attributes:
        executable: its file, symbolic links resolved.
        system: the shared libraries of the system.
        libraries: the directories below its prefix that hold its standard library and its shared libraries.
        packages: the directory inside those that holds installed packages, which programs need not see.
    """

    executable: Path
    system: tuple[Path, ...]
    libraries: tuple[Path, ...]
    packages: Path

    @classmethod
    @cache
    def current(cls) -> "Interpreter":
        """Return the interpreter of this process, outside of its virtual environment."""
        system = (Path("/usr/lib"), Path("/usr/lib64"), Path("/lib"), Path("/lib64"), Path("/etc/ld.so.cache"))
        libraries = (Path(sys.base_prefix) / name for name in ("lib", "lib64"))
        return cls(
            executable=Path(os.path.realpath(getattr(sys, "_base_executable", sys.executable))),
            system=tuple(path for path in system if path.exists()),
            libraries=tuple(path for path in libraries if path.is_dir()),
            packages=Path(sysconfig.get_path("stdlib")) / "site-packages",
        )


SOURCE = (Path(__file__).parent / "inside.py").read_text("utf-8")
ARGUMENTS = ("-I", "-S", "-B", "-c", SOURCE)
