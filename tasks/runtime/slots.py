"""The slot in which one model at a time runs in a process.

A running model fills the memory, and a large one all cores. While transformers builds a model it sets torch's default
dtype, which is global to the process, and its lazy imports fail when two threads make them at once. So steps that run a
model take turns. Merges, downloads and comparisons run beside them.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

_slot = threading.Lock()
_thread = threading.local()


class Turn:
    """A step's turn to have the slot. It begins before the step does, so that no step seems to run while it waits."""

    def __init__(self) -> None:
        self.held = False

    def begin(self, timeout: float | None = None) -> None:
        """Wait for the slot, at most `timeout` seconds. Called by the thread that will run the step."""
        self.held = _slot.acquire(timeout=-1 if timeout is None else timeout)
        _thread.turn = self

    def end(self) -> None:
        """Give the slot to the next step, if this one has it. Any thread may call this."""
        if self.held:
            self.held = False
            _slot.release()


@contextmanager
def model_slot() -> Iterator[None]:
    """Hold the slot: by the turn that the task runner gave this thread's step, or, from a runner without turns, now."""
    turn: Turn | None = getattr(_thread, "turn", None)
    if turn is not None and turn.held:
        yield
    else:
        with _slot:
            yield
