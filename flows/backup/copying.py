"""Copying the files of a home: databases first, each as it is at one moment, then what stays as it is."""

import hashlib
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

from rammerge.store import using
from rammerge.system.home import home

# What is made again, or tells of this machine alone.
_LEFT_OUT = {"kernels", "digests", "logs"}
_BESIDE_DATABASES = ("-wal", "-shm", "-journal")
_CHUNK = 1 << 20


class Copy:
    """Copies files into a directory, and returns size and SHA-256 of each. What was one file stays one."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._first: dict[tuple[int, int], tuple[Path, tuple[int, str]]] = {}

    def __call__(self, source: Path, name: str) -> tuple[int, str]:
        """Copy `source` to `name` below the directory."""
        target = self._root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        with source.open("rb") as reading:
            status = os.fstat(reading.fileno())
            file = status.st_dev, status.st_ino
            if file in self._first:
                first, copied = self._first[file]
                os.link(first, target)
                return copied
            digest = hashlib.sha256()
            with target.open("wb") as writing:
                while piece := reading.read(_CHUNK):
                    digest.update(piece)
                    writing.write(piece)
                copied = writing.tell(), digest.hexdigest()
                os.fchmod(writing.fileno(), status.st_mode & 0o777)
        if status.st_nlink > 1:
            self._first[file] = target, copied
        return copied


def copy_home(source: Path, target: Path) -> Iterator[tuple[str, int, str]]:
    """Copy everything, databases first; yield each file's name, size and SHA-256."""
    copy = Copy(target)
    databases = sorted(path for path in source.glob("*/*.db") if path.is_file())
    for path in databases:
        name = path.relative_to(source).as_posix()
        _copy_database(path, target / name)
        yield name, *_measured(target / name)
    for path in _files(source):
        if path in databases:
            continue
        name = path.relative_to(source).as_posix()
        with suppress(FileNotFoundError):  # a file of work that goes on
            yield name, *copy(path, name)


def _files(source: Path) -> Iterator[Path]:
    """Yield the files to copy; of the store, whole entries and what says which of their forms is the present one."""
    for top in sorted(path for path in source.iterdir() if path.name not in _LEFT_OUT):
        if top.name == "store":
            for kind in sorted(path for path in top.iterdir() if path.is_dir()):
                yield from _below(kind / ".generations", lambda _: True)
                for entry in sorted(kind.glob("[!.]*")):
                    with using(kind.name, entry.name):
                        yield from _below(entry, lambda _: True)
        else:
            yield from _below(top, _is_state)


def _below(top: Path, wanted: Callable[[Path], bool]) -> Iterator[Path]:
    if top.is_file():
        if wanted(top):
            yield top
        return
    for path in sorted(top.rglob("*")):
        if path.is_file() and not path.is_symlink() and wanted(path):
            yield path


def _is_state(path: Path) -> bool:
    """Tell whether a file outside of the store is more than a lock, a scratch file or a part of a database."""
    inside = path.relative_to(home()).parts
    scratch = any(part.startswith(".") for part in inside[:2])
    return not scratch and path.suffix != ".lock" and not path.name.endswith(_BESIDE_DATABASES)


def _copy_database(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(source)) as reading, closing(sqlite3.connect(target)) as writing:
        reading.backup(writing)
        writing.execute("PRAGMA journal_mode = DELETE")  # one file, without one beside it


def _measured(path: Path) -> tuple[int, str]:
    with path.open("rb") as file:
        return path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest()
