"""The processes in which models run, for the steps of this process (evaluation.runners.pool).

Models have processes of their own, so several small ones run at once, beside merges, downloads and comparisons.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Generic, TypeVar

from evaluation.runners.pool import Pool, Worker
from rammerge.errors import RammergeError
from rammerge.system.interrupts import hearing
from tasks.runtime import turns
from tasks.runtime.gpus import visible_as
from tasks.runtime.turns import Claim, room

R = TypeVar("R")

_pool = Pool()
_interrupted = threading.Event()
_elsewhere = threading.Event()


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
    assistants = min(len(work), turns.PLACES.size) - 1 if claim.shares else 0
    with ThreadPoolExecutor(max(1, assistants)) as threads, model_process(claim) as process:
        assisting = [threads.submit(shared.assist) for _ in range(assistants)]
        try:
            shared.work_off(process)
        finally:
            shared.todo.clear()
            turns.PLACES.give_back(0)  # assistants that still wait are no longer wanted
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
        if turns.PLACES.take_spare(lambda: bool(self.todo)):
            try:
                with _process(keep=True) as process:
                    self.work_off(process)
            finally:
                turns.PLACES.give_back(1)


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
    if not _elsewhere.is_set():
        _pool.warm_up()


@contextmanager
def none_expected() -> Iterator[None]:
    """While the context lasts, `expect_models` does nothing: the next steps, which run models, run elsewhere."""
    _elsewhere.set()
    try:
        yield
    finally:
        _elsewhere.clear()


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
