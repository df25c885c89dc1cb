"""What a run is doing right now, for whoever watches it: a listener hears every step start, advance and end."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Literal

State = Literal["running", "done", "cached", "failed"]


@dataclass(frozen=True)
class Event:
    """One thing that happened to a step.

    Attributes:
        step: the task run's name, such as `merge ram_plus`.
        state: what the step is doing, or how it ended; `cached` when nothing had to be done.
        seconds: since the step started (0 for a step that Prefect answered from its cache).
        fraction: how much of it is done, 0 to 1, if known.
        detail: a few words about the moment.
    """

    step: str
    state: State
    seconds: float = 0.0
    fraction: float | None = None
    detail: str = ""


Listener = Callable[[Event], None]

_listeners: list[Listener] = []
_current: ContextVar[tuple[str, float] | None] = ContextVar("rammerge_step", default=None)


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Send every event of this process to `listener`, from whichever thread it comes, while the context lasts."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)


def emit(event: Event) -> None:
    """Tell the listeners."""
    for listener in _listeners:
        listener(event)


@contextmanager
def running(step: str) -> Iterator[None]:
    """Announce that `step` runs, so that `advance` knows whom it speaks of."""
    token = _current.set((step, time.monotonic()))
    emit(Event(step, "running"))
    try:
        yield
    finally:
        _current.reset(token)


def advance(fraction: float | None = None, detail: str = "") -> None:
    """Say how far the running step is; nothing happens outside a step."""
    if current := _current.get():
        step, started = current
        emit(Event(step, "running", time.monotonic() - started, fraction, detail))
