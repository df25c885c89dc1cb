"""Noticing that a file was written again, without reading it: by its size, times and inode."""

import hashlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from rammerge.system.paths import is_directory

# How far below a directory its weights are looked for (rammerge.checkpoints.forms.folders), and one more.
_LEVELS = 5


def file_status(status: os.stat_result) -> list[int]:
    """Return size, modification time, change time and inode. One of them changes whenever the file is written again."""
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]


def digest_statuses(statuses: Mapping[str, os.stat_result]) -> str:
    """Return the SHA-256 of the statuses of files by name."""
    lines = [f"{name} {' '.join(map(str, file_status(status)))}\n" for name, status in statuses.items()]
    return hashlib.sha256("".join(sorted(lines)).encode()).hexdigest()


def directory_state(path: Path) -> str | None:
    """Return the SHA-256 of the statuses of the files in `path` and some levels below, None if it is not a directory.

    Trainers keep the weights some levels below the directory that a user names.
    """
    if not is_directory(path):
        return None
    return digest_statuses(dict(_statuses(path, "", _LEVELS)))


def _statuses(path: Path, prefix: str, levels: int) -> Iterator[tuple[str, os.stat_result]]:
    """Yield what is in a directory, without what is removed meanwhile, as trainers do, or may not be listed."""
    try:
        with os.scandir(path) as found:
            entries = sorted(found, key=lambda entry: entry.name)
    except (FileNotFoundError, PermissionError):
        return
    for entry in entries:
        try:
            status = entry.stat(follow_symlinks=not _is_broken(entry))
        except FileNotFoundError:
            continue
        yield f"{prefix}{entry.name}", status
        if levels and entry.is_dir(follow_symlinks=False):
            yield from _statuses(Path(entry), f"{prefix}{entry.name}/", levels - 1)


def _is_broken(entry: os.DirEntry[str]) -> bool:
    return entry.is_symlink() and not Path(entry).exists()
