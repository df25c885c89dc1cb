"""A copy of what rammerge's home holds, also while runs go on, and the way back.

Layout of a backup:

    backup.json    the home that it was made of, and the size and SHA-256 of every file; written last
    home/          the files, hard links among them as in the home

Databases are copied first. What they name was on the disk by then, and stays: the store's entries never change, and
none is removed while the backup runs.
"""

import json
import shutil
import time
from pathlib import Path
from typing import Any, NamedTuple

from flows.backup.copying import Copy, copy_home
from flows.backup.records import move_records
from rammerge.errors import InputError
from rammerge.store.entries import hold
from rammerge.system.atomic import sync, write_json
from rammerge.system.home import home
from rammerge.system.interrupts import removed_afterwards
from rammerge.version import __version__

_CONTENT, _FILES = "backup.json", "home"
_FORMAT = 1


class Kept(NamedTuple):
    """What a backup holds: the number of files, their bytes, and the home that they came from."""

    files: int
    size: int
    home: Path


def back_up(directory: Path) -> Kept:
    """Copy what rammerge's home holds into a new directory, which only this user may read.

    Raises:
        InputError: the directory has files or lies in the home, or there is no home to copy.
    """
    source = home()
    if not source.is_dir():
        raise InputError(f"{source} does not exist; set RAMMERGE_HOME to the home to copy")
    if directory.absolute().is_relative_to(source):
        raise InputError(f"{directory} lies in what is copied, {source}; name a directory elsewhere")
    _require_empty(directory, "name a new directory for the backup")
    beside = _beside(directory)
    with removed_afterwards(beside):
        if (source / "store").is_dir():
            hold(source / "store")  # nothing is pruned from now on
        known: dict[str, dict[str, str | int]] = {}
        for name, size, digest in copy_home(source, beside / _FILES):
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
        copy = Copy(beside)
        for name, known in content["files"].items():
            try:
                copied = copy(directory / _FILES / name, name)
            except FileNotFoundError as error:
                raise InputError(f"{directory} lacks {name}; take a different backup") from error
            if copied != (known["size"], known["sha256"]):
                raise InputError(f"{name} in {directory} is not what was backed up; take a different backup")
        if str(target) != content["home"]:
            move_records(beside, content["home"], str(target))
        beside.replace(target)
        sync(target.parent)
    return _kept(content)


def _read(directory: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads((directory / _CONTENT).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(
            f"{directory} is no complete backup: it has no readable {_CONTENT}; give what `rammerge backup` wrote"
        ) from error
    if content["format"] != _FORMAT:
        raise InputError(f"{directory} was made by rammerge {content['rammerge']}; restore it with that version")
    if outside := [name for name in content["files"] if Path(name).is_absolute() or ".." in Path(name).parts]:
        raise InputError(f"{directory} names a file outside of the home, {outside[0]}; do not restore it")
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
