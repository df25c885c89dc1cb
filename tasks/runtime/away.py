"""Steps in other processes than their run's: what a worker of a cluster and the run tell one another.

A step in a worker writes how far it is into a file below the home, which both see, and the run's process reads it. How
long a step may take, and the shared store, travel with what Prefect sends of the flow.
"""

import hashlib
import json
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path

from prefect import Flow
from prefect.context import FlowRunContext

from rammerge import store
from rammerge.system.home import home
from tasks.runtime.limits import limit_steps_to
from tasks.runtime.progress import Event, emit, listening

_EVERY_SECONDS = 0.5


class StandIn(Flow[[], None]):
    """A flow that is sent to workers in place of the run's own, with what they are to know of the run.

    Attributes:
        shared: the shared store that the run uses.
    """

    def __init__(self, name: str, seconds: float, shared: str | None) -> None:
        """Take the flow's name, the limit of a step as its limit, and the shared store."""
        super().__init__(_nothing, name=name, timeout_seconds=seconds)
        self.shared = shared


def _nothing() -> None:
    """Do nothing: workers run steps, not the flow."""


def follow_run() -> None:
    """In a worker of a cluster use the shared store of the run that sent the step, and hold the run's limit."""
    context = FlowRunContext.get()
    if context is not None and context.detached and isinstance(context.flow, StandIn):
        if store.shared_url() != context.flow.shared:
            store.share(context.flow.shared)
        if context.flow.timeout_seconds:
            limit_steps_to(context.flow.timeout_seconds)


@contextmanager
def away(step: str) -> Iterator[None]:
    """In a worker of a cluster follow the run, and tell it how far the step is; elsewhere do nothing."""
    context = FlowRunContext.get()
    if context is None or not context.detached or context.flow_run is None:
        yield
        return
    follow_run()
    teller = _Teller(step, _directory(str(context.flow_run.id)))
    with listening(teller):
        try:
            yield
        finally:
            teller.end()


class _Teller:
    """Keeps a step's last event in a file. A directory that is gone says that nobody wants to know."""

    def __init__(self, step: str, directory: Path) -> None:
        self._step, self._due = step, 0.0
        self._file = directory / hashlib.sha256(step.encode()).hexdigest()[:16]

    def __call__(self, event: Event) -> None:
        if event.step != self._step or time.monotonic() < self._due:
            return
        self._due = time.monotonic() + _EVERY_SECONDS
        beside = self._file.with_name(f".{self._file.name}.{threading.get_ident()}")
        with suppress(OSError):
            beside.write_text(json.dumps(asdict(event)), encoding="utf-8")
            beside.replace(self._file)

    def end(self) -> None:
        with suppress(OSError):
            self._file.unlink(missing_ok=True)


@contextmanager
def heard(run: str) -> Iterator[None]:
    """While the context lasts, send what workers tell of their steps to this process's listeners."""
    directory, over = _directory(run), threading.Event()
    directory.mkdir(parents=True, exist_ok=True)
    thread = threading.Thread(target=_hear, args=(directory, over), name="hear workers", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        shutil.rmtree(directory, ignore_errors=True)


def _hear(directory: Path, over: threading.Event) -> None:
    last: dict[Path, str] = {}
    while not over.wait(_EVERY_SECONDS):
        for file in directory.glob("[!.]*"):
            with suppress(OSError, ValueError, TypeError):  # the step has ended meanwhile
                text = file.read_text(encoding="utf-8")
                if text != last.get(file):
                    last[file] = text
                    emit(Event(**json.loads(text)))


def _directory(run: str) -> Path:
    return home() / "runs" / "progress" / run
