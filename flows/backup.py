"""A copy of what rammerge's home holds, also while runs go on, and the way back.

Layout of a backup:

    backup.json    the home that it was made of, and the size and SHA-256 of every file; written last
    home/          the files, hard links among them as in the home

Databases are copied first. What they name was on the disk by then, and stays: the store's entries never change, and
none is removed while the backup runs.
"""

import hashlib
import json
import os
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, NamedTuple

from rammerge.errors import InputError
from rammerge.store import using
from rammerge.store.entries import hold
from rammerge.system.atomic import sync, write_json
from rammerge.system.home import home
from rammerge.system.interrupts import removed_afterwards
from rammerge.version import __version__

_CONTENT, _FILES = "backup.json", "home"
_FORMAT = 1
# What is made again, or tells of this machine alone.
_LEFT_OUT = {"kernels", "digests", "logs"}
_BESIDE_DATABASES = ("-wal", "-shm", "-journal")
_CHUNK = 1 << 20


class Kept(NamedTuple):
    """What a backup holds: the number of files, their bytes, and the home that they came from."""

    files: int
    size: int
    home: Path


def back_up(directory: Path) -> Kept:
    """Copy what rammerge's home holds into a new directory, which only this user may read.

    Raises:
        InputError: the directory has files, or there is no home to copy.
    """
    source = home()
    if not source.is_dir():
        raise InputError(f"{source} does not exist; set RAMMERGE_HOME to the home to copy")
    _require_empty(directory, "name a new directory for the backup")
    beside = _beside(directory)
    with removed_afterwards(beside):
        if (source / "store").is_dir():
            hold(source / "store")  # nothing is pruned from now on
        known: dict[str, dict[str, str | int]] = {}
        for name, size, digest in _copied(source, beside / _FILES):
            known[name] = {"size": size, "sha256": digest}
        content = {"format": _FORMAT, "rammerge": __version__, "home": str(source), "made": time.time(), "files": known}
        write_json(beside / _CONTENT, content)
        beside.replace(directory)
        sync(directory.parent)
    return _kept(content)


def restore(directory: Path) -> Kept:
    """Make rammerge's home of a backup. Every file is compared with its hash; only a whole home gets the name.

    Raises:
        InputError: the backup is incomplete or damaged, or the home has files.
    """
    content = _read(directory)
    target = home()
    _require_empty(target, "set RAMMERGE_HOME to a new directory, or move this one away")
    beside = _beside(target)
    with removed_afterwards(beside):
        copy = _Copy(beside)
        for name, known in content["files"].items():
            try:
                copied = copy(directory / _FILES / name, name)
            except FileNotFoundError as error:
                raise InputError(f"{directory} lacks {name}; take a different backup") from error
            if copied != (known["size"], known["sha256"]):
                raise InputError(f"{name} in {directory} is not what was backed up; take a different backup")
        if str(target) != content["home"]:
            _move_records(beside, content["home"], str(target))
        beside.replace(target)
        sync(target.parent)
    return _kept(content)


class _Copy:
    """Copies files into a directory, and returns size and SHA-256 of each. What was one file stays one."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._first: dict[tuple[int, int], tuple[Path, tuple[int, str]]] = {}

    def __call__(self, source: Path, name: str) -> tuple[int, str]:
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


def _copied(source: Path, target: Path) -> Iterator[tuple[str, int, str]]:
    """Copy everything, databases first; yield each file's name, size and SHA-256."""
    copy = _Copy(target)
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


def _move_records(copy: Path, old: str, new: str) -> None:
    """Have the records that name files by their path name them in the new home."""
    forms = [(f"{before}/", f"{after}/") for before, after in {(old, new), (Path(old).as_uri(), Path(new).as_uri())}]
    for path in (copy / "runs").glob("*.json"):
        text = path.read_text("utf-8")
        for before, after in forms:
            text = text.replace(before, after)
        path.write_text(text, "utf-8")
    if (mlflow := copy / "mlflow" / "mlflow.db").is_file():
        with closing(sqlite3.connect(mlflow)) as database, database:
            for table, column in _text_columns(database):
                for before, after in forms:
                    database.execute(
                        f'UPDATE "{table}" SET "{column}" = replace("{column}", ?, ?) WHERE instr("{column}", ?)',
                        (before, after, before),
                    )


def _text_columns(database: sqlite3.Connection) -> list[tuple[str, str]]:
    tables = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    columns = [(table, row[1], row[2]) for table in tables for row in database.execute(f'PRAGMA table_info("{table}")')]
    return [(table, column) for table, column, kind in columns if kind.startswith(("VARCHAR", "TEXT"))]


def _read(directory: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads((directory / _CONTENT).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{directory} is no complete backup: it has no readable {_CONTENT}") from error
    if content["format"] != _FORMAT:
        raise InputError(f"{directory} was made by rammerge {content['rammerge']}; restore it with that version")
    return content


def _require_empty(directory: Path, fix: str) -> None:
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise InputError(f"{directory} is not empty; {fix}")


def _beside(directory: Path) -> Path:
    """Make a directory for what gets the name of `directory` once it is whole."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    beside = directory.with_name(f".{directory.name}.partial")
    shutil.rmtree(beside, ignore_errors=True)  # of an attempt that was killed
    beside.mkdir(mode=0o700)
    return beside


def _kept(content: dict[str, Any]) -> Kept:
    files = content["files"]
    return Kept(len(files), sum(known["size"] for known in files.values()), Path(content["home"]))
