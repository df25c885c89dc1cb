"""Noticing, without reading a file, that it was written again: by its size, times and inode."""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path


def file_status(status: os.stat_result) -> list[int]:
    """Return size, modification time, change time and inode. One of them changes whenever the file is written again."""
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]


def digest_statuses(statuses: Mapping[str, os.stat_result]) -> str:
    """Return the SHA-256 of the statuses of files by name."""
    lines = [f"{name} {' '.join(map(str, file_status(status)))}\n" for name, status in statuses.items()]
    return hashlib.sha256("".join(sorted(lines)).encode()).hexdigest()


def directory_state(path: Path) -> str | None:
    """Return the SHA-256 of the statuses of the files in `path`, or None if it is not a directory."""
    if not path.is_dir():
        return None
    with os.scandir(path) as entries:
        return digest_statuses({entry.name: entry.stat() for entry in entries})
