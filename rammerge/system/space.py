"""Whether a disk has room for what is to be written."""

import shutil
from pathlib import Path

from rich.filesize import decimal

from rammerge.errors import InputError


def free_bytes(path: Path) -> int:
    """Return how many bytes are free where `path` is, or where it would be made."""
    existing = next(place for place in (path, *path.parents) if place.exists())
    return shutil.disk_usage(existing).free


def require_space(path: Path, needed: int, *, what: str, where: str, fix: str) -> None:
    """Check that `needed` bytes are free at `path`.

    Args:
        path: what is to be written, or the directory that it goes to.
        needed: how many bytes that takes.
        what: names it in the message.
        where: names the disk in the message.
        fix: what the user can do.

    Raises:
        InputError: there is less room.
    """
    free = free_bytes(path)
    if free < needed:
        raise InputError(f"{what} needs {decimal(needed)} and {where} has {decimal(free)} free; {fix}")
