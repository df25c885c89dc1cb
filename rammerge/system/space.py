"""Checking that a disk has room before writing."""

import shutil
from pathlib import Path

from rich.filesize import decimal

from rammerge.errors import InputError
from rammerge.system.paths import exists


def free_bytes(path: Path) -> int:
    """Return the number of free bytes on the disk of `path`, which need not exist."""
    existing = next(place for place in (path, *path.parents) if exists(place))
    return shutil.disk_usage(existing).free


def require_space(path: Path, needed: int, *, what: str, where: str, fix: str) -> None:
    """Check that `needed` bytes are free at `path`.

    Args:
        path: the file to write, or its directory.
        needed: the number of bytes.
        what: the message's name for the file.
        where: the message's name for the disk.
        fix: what the user can do.

    Raises:
        InputError: fewer bytes are free.
    """
    free = free_bytes(path)
    if free < needed:
        raise InputError(f"{what} needs {decimal(needed)} and {where} has {decimal(free)} free; {fix}")
