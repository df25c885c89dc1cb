"""Room for models, which the steps of one process share.

A model runs in a process of its own (evaluation.runners.pool), so that several small ones run at once, and merges,
downloads and comparisons beside them. A large model gets the room of all: it fills the memory, and its arithmetic all
processors. So does a model on a GPU.
"""

import os
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from evaluation.backends.transformers import is_small
from evaluation.runners.pool import Pool, Worker
from rammerge.checkpoints.checkpoint import Checkpoint
from rammerge.errors import RammergeError
from rammerge.system.interrupts import hearing

_MOST = 8  # each process holds torch and a model: about half a gigabyte


class Room:
    """Places for models, given in the order in which they were asked for."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._free = size
        self._queue: deque[object] = deque()
        self._changed = threading.Condition()

    @property
    def waiting(self) -> int:
        """How many wait for places."""
        return len(self._queue)

    def take(self, places: int, timeout: float | None = None) -> bool:
        """Wait for places, at most `timeout` seconds, and say whether they were given."""
        turn = object()
        with self._changed:
            self._queue.append(turn)
            given = self._changed.wait_for(lambda: self._queue[0] is turn and self._free >= places, timeout)
            self._queue.remove(turn)
            self._free -= places if given else 0
            self._changed.notify_all()
            return given

    def give_back(self, places: int) -> None:
        """Give places to whoever waits."""
        with self._changed:
            self._free += places
            self._changed.notify_all()


_places = Room(min(_MOST, len(os.sched_getaffinity(0))))
_pool = Pool()
_thread = threading.local()
_interrupted = threading.Event()


class Turn:
    """A step's turn to run a model. It begins before the step does, so that no step seems to run while it waits."""

    def __init__(self) -> None:
        self._taken = 0

    @property
    def held(self) -> bool:
        """Whether the turn has begun and not ended."""
        return self._taken > 0

    def begin(self, *, alone: bool, timeout: float | None = None) -> None:
        """Wait for room, at most `timeout` seconds. Called by the thread that will run the step."""
        places = _places.size if alone else 1
        if _places.take(places, timeout):
            self._taken = places
        _thread.turn = self

    def end(self) -> None:
        """Give the room back, if this turn has any. Any thread may call this."""
        taken, self._taken = self._taken, 0
        if taken:
            _places.give_back(taken)


def fills_the_machine(model: Checkpoint, device: str) -> bool:
    """Tell whether a model needs the room of all."""
    return device != "cpu" or not is_small(sum(tensor.numel for tensor in model.tensors.values()))


@contextmanager
def room(*, alone: bool) -> Iterator[None]:
    """Hold room for one model: that of the turn which the task runner gave to this thread's step, else what is free."""
    turn: Turn | None = getattr(_thread, "turn", None)
    if turn is not None and turn.held:
        yield
        return
    taken = _places.size if alone else 1
    _places.take(taken)
    try:
        yield
    finally:
        _places.give_back(taken)


@contextmanager
def model_process(*, alone: bool) -> Iterator[Worker]:
    """Hold room for one model, and yield a process to run it in.

    Raises:
        RammergeError: the run was interrupted.
    """
    with room(alone=alone):
        if _interrupted.is_set():
            raise RammergeError("the run was interrupted before the model had its turn")
        with _pool.worker(keep=not alone) as worker:
            yield worker


def expect_models() -> None:
    """Begin to start what runs models, which takes seconds; returns at once."""
    _pool.warm_up()


@contextmanager
def ended_by_interrupt() -> Iterator[None]:
    """While the context lasts, have a signal end whatever runs models at once, and let no further model start.

    Otherwise Prefect waits for the steps that run, which takes as long as a model takes for all of its suites.
    """

    def end() -> None:
        _interrupted.set()
        _pool.close()

    _interrupted.clear()
    with hearing(end):
        yield
