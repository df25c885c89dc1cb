"""Showing the progress of commands: a live bar on a terminal, plain lines elsewhere."""

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rammerge.system.redaction import redact

if TYPE_CHECKING:
    from rammerge.engine.progress import OnProgress, Progress

_PLAIN_EVERY_SECONDS = 10.0


def say(line: str) -> None:
    """Print a line about the work to stderr; results go to stdout."""
    print(redact(line), file=sys.stderr, flush=True)


@contextmanager
def progress_display() -> "Iterator[OnProgress]":
    """Yield a callback for engine progress, safe to call from any thread."""
    if sys.stderr.isatty():
        with _bars() as update:
            yield update
    else:
        yield _plain_lines()


@contextmanager
def _bars() -> "Iterator[OnProgress]":
    from rich.console import Console
    from rich.progress import BarColumn, TaskID, TaskProgressColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Bars(*columns, console=Console(stderr=True)) as bars:
        known: dict[str, TaskID] = {}
        lock = threading.Lock()

        def update(progress: "Progress") -> None:
            with lock:
                if progress.stage not in known:
                    known[progress.stage] = bars.add_task(progress.stage, total=progress.total)
                bars.update(known[progress.stage], completed=progress.done)

        yield update


def _plain_lines() -> "OnProgress":
    lock = threading.Lock()
    started = time.monotonic()
    last = {"at": started}

    def update(progress: "Progress") -> None:
        with lock:
            now = time.monotonic()
            if now - last["at"] >= _PLAIN_EVERY_SECONDS or (progress.done == progress.total and now - started > 1):
                last["at"] = now
                share = progress.done / progress.total if progress.total else 1.0
                say(f"{progress.stage}: {share:.0%} of {progress.total:,} elements")

    return update
