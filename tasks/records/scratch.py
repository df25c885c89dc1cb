"""Directories that hold files on their way to or from MLflow, and that leave nothing behind."""

import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from rammerge.system.home import home
from rammerge.system.interrupts import removed_afterwards
from rammerge.system.locks import locked, try_locked
from tasks.records.connection import lock_file


@contextmanager
def scratch(parent: Path) -> Iterator[Path]:
    """Make a directory in `parent` that is gone afterwards: if this process is killed, when the next one comes here.

    Several processes may have one at the same time. Each keeps a note of its own locked that names the directory, so a
    note that nobody locks is what a killed process has left.
    """
    notes, name = home() / "mlflow" / "scratch", uuid4().hex
    parent.mkdir(parents=True, exist_ok=True)
    directory = parent / f".model-{name}"
    with ExitStack() as stack:
        with locked(lock_file("scratch")):  # otherwise a new note could be taken for a left one before it is locked
            _remove_left(notes)
            stack.enter_context(try_locked(notes / name))
            (notes / name).write_text(str(directory), encoding="utf-8")
        stack.enter_context(removed_afterwards(directory))
        directory.mkdir()
        yield directory


def _remove_left(notes: Path) -> None:
    for note in notes.glob("*"):
        with suppress(BlockingIOError), try_locked(note):
            if directory := note.read_text(encoding="utf-8"):  # empty after a kill before anything was made
                shutil.rmtree(directory, ignore_errors=True)
