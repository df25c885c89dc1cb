"""Room for models, which the steps of one process share.

A model runs in a process of its own (evaluation.runners.pool), so that several small ones run at once, and merges,
downloads and comparisons beside them. A large model gets the room of all: it fills the memory, and its arithmetic all
processors. A model on a GPU, and a merge there, has that GPU alone; several GPUs are used at the same time.
"""

import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from evaluation.backends.transformers import is_small
from evaluation.runners.pool import Pool, Worker
from rammerge.checkpoints.checkpoint import open_checkpoint
from rammerge.checkpoints.patched.place import is_patch
from rammerge.errors import RammergeError
from rammerge.system.interrupts import hearing
from rammerge.system.lazy import torch
from tasks.runtime.gpus import Gpus, number_of, visible_as

R = TypeVar("R")

_MOST = 8  # each process holds torch and a model: about half a gigabyte


class Room:
    """Places for models, given in the order in which they were asked for."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._free = size
        self._expected = 0
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

    def expect(self, more: int) -> None:
        """Count models that will need places later, so that these are not given away as spare ones."""
        with self._changed:
            self._expected += more
            self._changed.notify_all()

    def take_spare(self, wanted: Callable[[], bool]) -> bool:
        """Wait, while a place is `wanted`, for one that nobody needs or will need, and say whether it was given."""
        with self._changed:
            self._changed.wait_for(lambda: not wanted() or (not self._queue and not self._expected and self._free > 0))
            given = wanted()
            self._free -= given
            return given

    def give_back(self, places: int) -> None:
        """Give places to those who wait. Those who wait for a spare one check again whether they still want it."""
        with self._changed:
            self._free += places
            self._changed.notify_all()


@dataclass(frozen=True)
class Claim:
    """What a model needs to run: one of some GPUs, by number, or else places, all of them if it runs `alone`."""

    alone: bool = False
    gpus: tuple[str, ...] = ()

    @property
    def shares(self) -> bool:
        """Whether others run beside it in the same room."""
        return not self.alone and not self.gpus


_gpus = Gpus()
_places = Room(min(_MOST, len(os.sched_getaffinity(0))))
_pool = Pool()
_thread = threading.local()
_interrupted = threading.Event()


class Turn:
    """A step's turn to run a model. It begins before the step does, so that no step seems to run while it waits."""

    def __init__(self, *, expected: bool = False) -> None:
        """Reserve nothing yet; `expected` says that a step will run a model, so the turn will begin."""
        self._taken = 0
        self.gpu: str | None = None
        self._expected = expected
        _places.expect(int(expected))

    @property
    def held(self) -> bool:
        """Whether the turn has begun and not ended."""
        return self._taken > 0 or self.gpu is not None

    def begin(self, claim: Claim, timeout: float | None = None) -> None:
        """Wait for room, at most `timeout` seconds. Called by the thread that will run the step."""
        self.take(claim, timeout)
        self._expect_no_more()
        _thread.turn = self

    def take(self, claim: Claim, timeout: float | None = None) -> None:
        """Wait for room, at most `timeout` seconds, and hold it if it is given."""
        places = _places.size if claim.alone else 1
        if claim.gpus:
            self.gpu = _gpus.take(claim.gpus, timeout)
        elif _places.take(places, timeout):
            self._taken = places

    def end(self) -> None:
        """Give the room back, if this turn has any, and expect it no more. Any thread may call this."""
        self._expect_no_more()
        taken, self._taken = self._taken, 0
        if taken:
            _places.give_back(taken)
        gpu, self.gpu = self.gpu, None
        if gpu is not None:
            _gpus.give_back(gpu)

    def _expect_no_more(self) -> None:
        expected, self._expected = self._expected, False
        _places.expect(-int(expected))


def claim_of(model: Path, devices: Sequence[str]) -> Claim:
    """Return what the model in a directory needs on one of some devices, which are the processors or GPUs."""
    if "cpu" in devices:
        return Claim(alone=not is_small(_elements(model)))
    return Claim(gpus=tuple(map(number_of, devices)))


def _elements(model: Path) -> int:
    if is_patch(model):
        from rammerge.checkpoints.patched.opening import count_elements  # only patches need numpy and pyarrow

        return count_elements(model)
    return sum(tensor.numel for tensor in open_checkpoint(model).tensors.values())


@contextmanager
def room(claim: Claim) -> Iterator[str | None]:
    """Hold room for one model: that of the turn which the task runner gave to this thread's step, else what is free.

    Yields the number of the GPU. A small model's turn ends with the context, a large one's with its step, so that such
    steps follow one another.
    """
    turn = _turn()
    if turn is not None and turn.held:
        yield turn.gpu
        if claim.shares:
            turn.end()
        return
    own = Turn()
    own.take(claim)
    try:
        yield own.gpu
    finally:
        own.end()


def _turn() -> Turn | None:
    turn: Turn | None = getattr(_thread, "turn", None)
    return turn


@contextmanager
def merging_on(device: str) -> Iterator[str]:
    """Hold the GPU on which this thread merges, and yield its name: that which its step holds already, if it does.

    So a step that has a GPU never waits for another one.
    """
    turn = _turn()
    held = turn.gpu if turn is not None else None
    if device == "cpu" or held is not None:
        yield device if held is None or device == "cpu" else f"cuda:{held}"
        return
    own = Turn()
    own.take(Claim(gpus=(number_of(device),)))
    try:
        yield device
    finally:
        torch.cuda.empty_cache()  # what torch keeps for later merges would be missing for models
        own.end()


@contextmanager
def model_process(claim: Claim) -> Iterator[Worker]:
    """Hold room for one model, and yield a process to run it in. On a GPU it sees that GPU alone, as `cuda`.

    Raises:
        RammergeError: the run was interrupted.
    """
    with room(claim) as gpu, _process(keep=claim.shares) as worker:
        if gpu is not None:
            worker.ask("see", gpu=visible_as(gpu))
        yield worker


@contextmanager
def process_beside() -> Iterator[Worker]:
    """Yield a process for a model that runs elsewhere, and so needs no room here; see `model_process`."""
    with _process(keep=True) as worker:
        yield worker


@contextmanager
def _process(*, keep: bool, purpose: str = "models") -> Iterator[Worker]:
    if _interrupted.is_set():
        raise RammergeError("the run was interrupted before the model had its turn")
    with _pool.worker(keep=keep, purpose=purpose) as worker:
        yield worker


def share_out(work: Sequence[Callable[[Worker], R]], claim: Claim) -> list[R]:
    """Do pieces of work on one model, each in a process that runs it, and return their results in order.

    This thread holds room as `model_process` does. While there is room for further small models that nobody else waits
    for, as for the last model of a run, other threads share its work.

    Raises:
        RammergeError: the run was interrupted. Whatever a piece raises comes through, once no piece runs any more.
    """
    shared = _Shared(work)
    assistants = min(len(work), _places.size) - 1 if claim.shares else 0
    with ThreadPoolExecutor(max(1, assistants)) as threads, model_process(claim) as process:
        assisting = [threads.submit(shared.assist) for _ in range(assistants)]
        try:
            shared.work_off(process)
        finally:
            shared.todo.clear()
            _places.give_back(0)  # assistants that still wait are no longer wanted
    for assistant in assisting:
        assistant.result()
    return [shared.done[number] for number in range(len(work))]


class _Shared(Generic[R]):
    """Pieces of work that several threads take."""

    def __init__(self, work: Sequence[Callable[[Worker], R]]) -> None:
        self.todo = deque(enumerate(work))
        self.done: dict[int, R] = {}

    def work_off(self, process: Worker) -> None:
        while self.todo:
            try:
                number, piece = self.todo.popleft()
            except IndexError:  # another thread took the last one
                return
            self.done[number] = piece(process)

    def assist(self) -> None:
        if _places.take_spare(lambda: bool(self.todo)):
            try:
                with _process(keep=True) as process:
                    self.work_off(process)
            finally:
                _places.give_back(1)


def limit_models(seconds: float) -> None:
    """From now on end a model that takes longer to answer; the step that asked it fails."""
    _pool.limit = seconds


def call_beside_models(function: Callable[..., None], **arguments: str) -> None:
    """Call a function of a module in a process that runs models, because that has imported transformers.

    The function is short and holds no model, so it needs no room. The next call finds what this one imported.

    Raises:
        RammergeError: the run was interrupted, or what the function raised.
    """
    with _process(keep=True, purpose="calls") as worker:
        worker.ask("call", function=f"{function.__module__}:{function.__name__}", arguments=arguments)


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
