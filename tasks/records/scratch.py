"""Directories that hold files on their way to or from MLflow, and that leave nothing behind."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from rammerge.system.atomic import write_text
from rammerge.system.home import home
from rammerge.system.interrupts import removed_afterwards


@contextmanager
def scratch(parent: Path) -> Iterator[Path]:
    """Make a directory in `parent` that is gone afterwards: if this process is killed, when the next one comes here.

    Whoever calls this holds the lock on aliases, so there is one such directory at a time.
    """
    note = home() / "mlflow" / "unfinished"
    with suppress(FileNotFoundError):
        shutil.rmtree(note.read_text(encoding="utf-8"), ignore_errors=True)
    parent.mkdir(parents=True, exist_ok=True)
    directory = parent / f".model-{os.getpid()}"
    write_text(note, str(directory))
    directory.mkdir()
    with removed_afterwards(directory):
        yield directory
    note.unlink(missing_ok=True)
