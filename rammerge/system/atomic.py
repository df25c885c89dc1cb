"""Atomic writes: after a crash the old content or the new is there, never a mix."""

import json
import os
import secrets
from pathlib import Path
from typing import Any


def write_text(path: Path, text: str) -> None:
    """Replace the content of `path` with `text` (UTF-8), creating parent directories.

    The new content is on the disk before it takes the name.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not `tempfile`: its files are for their owner alone, and others may share the directory.
    beside = path.with_name(f".{path.name}.{secrets.token_urlsafe(6)}")
    try:
        with beside.open("x", encoding="utf-8", newline="") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def write_json(path: Path, content: Any) -> None:
    """Replace the content of `path` with `content` as indented JSON with sorted keys."""
    write_text(path, json.dumps(content, indent=2, sort_keys=True, allow_nan=False) + "\n")


def sync(path: Path) -> None:
    """Flush a file's content, or the names in a directory, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
