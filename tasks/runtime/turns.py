"""Room for models, which the steps of one process share, and whose turn it is to have it.

A large model gets the room of all: it fills the memory, and its arithmetic all processors. A model on a GPU, and a
merge there, has that GPU alone; several GPUs are used at the same time.
"""

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from evaluation.backends.transformers import is_small
from rammerge.checkpoints.checkpoint import open_checkpoint
from rammerge.checkpoints.patched.place import is_patch
from rammerge.system.lazy import torch
from tasks.runtime.gpus import Gpus, number_of
from tasks.runtime.places import Room

_MOST = 8  # each process holds torch and a model: about half a gigabyte


@dataclass(frozen=True)
class Claim:
    """What a model needs to run: one of some GPUs, by number, or else places, all of them if it runs `alone`."""

    alone: bool = False
    gpus: tuple[str, ...] = ()

    @property
    def shares(self) -> bool:
        """Whether others run beside it in the same room."""
        return not self.alone and not self.gpus


# Of this process.
GPUS = Gpus()
PLACES = Room(min(_MOST, len(os.sched_getaffinity(0))))
_thread = threading.local()


class Turn:
    """A step's turn to run a model. It begins before the step does, so that no step seems to run while it waits."""

    def __init__(self, *, expected: bool = False) -> None:
        """Reserve nothing yet; `expected` says that a step will run a model, so the turn will begin."""
        self._taken = 0
        self.gpu: str | None = None
        self._expected = expected
        PLACES.expect(int(expected))

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
        places = PLACES.size if claim.alone else 1
        if claim.gpus:
            self.gpu = GPUS.take(claim.gpus, timeout)
        elif PLACES.take(places, timeout):
            self._taken = places

    def end(self) -> None:
        """Give the room back, if this turn has any, and expect it no more. Any thread may call this."""
        self._expect_no_more()
        taken, self._taken = self._taken, 0
        if taken:
            PLACES.give_back(taken)
        gpu, self.gpu = self.gpu, None
        if gpu is not None:
            GPUS.give_back(gpu)

    def _expect_no_more(self) -> None:
        expected, self._expected = self._expected, False
        PLACES.expect(-int(expected))


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
        try:
            torch.cuda.empty_cache()  # what torch keeps for later merges would be missing for models
        finally:  # after some errors of a GPU, every call of CUDA fails
            own.end()
