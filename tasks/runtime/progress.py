"""Events about running steps, for listeners in this process and, if a step is long, for the dashboard."""

import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from dataclasses import dataclass
from typing import Any, Literal
from uuid import UUID

from prefect.artifacts import create_progress_artifact, update_progress_artifact

State = Literal["running", "done", "cached", "failed", "skipped"]

# A step that takes longer gets a progress bar in the dashboard. Each update is a call of Prefect's server.
LONG_SECONDS = 10.0
EVERY_SECONDS = 5.0


@dataclass(frozen=True)
class Event:
    """A change of a step's state or progress.

    Attributes:
        step: the task run's name, such as `merge ram_plus`.
        state: `running`, or how the step ended: `cached` when there was nothing to do, `skipped` when a step that it
            depends on failed.
        fraction: the share that is done, 0 to 1, if known.
        detail: a few words about the current work.
        kind: of a step that ended, what it does, such as `merge`.
        model: the name of the model that it did this to, if there is one.
        result: what it returned, if it is done or cached.
    """

    step: str
    state: State
    fraction: float | None = None
    detail: str = ""
    kind: str = ""
    model: str | None = None
    result: Any = None


Listener = Callable[[Event], None]

_listeners: list[Listener] = []


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """While the context lasts, send every event of this process to `listener`, from any thread."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)


def emit(event: Event) -> None:
    """Send `event` to all listeners."""
    for listener in tuple(_listeners):  # one may leave meanwhile
        listener(event)


class StepProgress:
    """Reports the progress of one step. May be called from any thread, such as the engine's."""

    def __init__(self, step: str) -> None:
        self._step = step
        self._context = copy_context()  # of the step's thread, so that Prefect assigns the progress to the step
        self._lock = threading.Lock()
        self._due = time.monotonic() + LONG_SECONDS
        self._artifact: UUID | None = None

    def __call__(self, fraction: float | None = None, detail: str = "") -> None:
        """Report to the listeners, and from time to time to the dashboard."""
        emit(Event(self._step, "running", fraction, detail))
        if fraction is None or time.monotonic() < self._due:
            return
        with self._lock:
            if time.monotonic() >= self._due:
                self._context.run(self._publish, 100 * fraction)
                self._due = time.monotonic() + EVERY_SECONDS

    def _publish(self, percent: float) -> None:
        if self._artifact is None:
            key = re.sub(r"[^a-z0-9]+", "-", f"progress-{self._step}".lower())
            created = create_progress_artifact(percent, key=key, description=self._step)
            self._artifact = created if isinstance(created, UUID) else None
        else:
            update_progress_artifact(self._artifact, percent)


_current: ContextVar[StepProgress] = ContextVar("rammerge_progress")


@contextmanager
def running(step: str) -> Iterator[None]:
    """Announce that `step` runs. Within the context, `progress()` returns its progress."""
    emit(Event(step, "running"))
    token = _current.set(StepProgress(step))
    try:
        yield
    finally:
        _current.reset(token)


def progress() -> StepProgress:
    """Return the progress of the step that this thread runs."""
    return _current.get()
