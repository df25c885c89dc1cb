"""GPUs: each makes one merge or runs one model at a time, whichever process of this machine asks for it.

A process that has a GPU holds a lock of the kernel below the home, which ends with the process, however that ends. So
no server has to know who has which GPU, and none can forget it.
"""

import os
import threading
import time
from collections import deque
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from rammerge.system.home import home
from rammerge.system.locks import try_locked

_LOOK_SECONDS = 0.5  # how often to look whether another process has given a GPU back
# The machine since it was started: containers on it have names of their own, and share its GPUs and its kernel's locks.
_MACHINE = Path("/proc/sys/kernel/random/boot_id")


class Gpus:
    """Who has which GPU, by its number. In a process they are given in the order in which they were asked for."""

    def __init__(self) -> None:
        self._taken: dict[str, ExitStack] = {}
        self._queue: deque[tuple[object, Sequence[str]]] = deque()
        self._changed = threading.Condition()

    @property
    def waiting(self) -> int:
        """How many wait for a GPU."""
        return len(self._queue)

    def take(self, numbers: Sequence[str], timeout: float | None = None) -> str | None:
        """Wait for one of some GPUs, at most `timeout` seconds. Return its number, or None if none was given."""
        turn = object()
        until = None if timeout is None else time.monotonic() + timeout
        with self._changed:
            self._queue.append((turn, numbers))
            try:
                while (found := self._try(turn)) is None and (until is None or time.monotonic() < until):
                    self._changed.wait(_LOOK_SECONDS)
                return found
            finally:  # whoever cannot lock a GPU must not keep the others from it
                self._queue = deque(each for each in self._queue if each[0] is not turn)
                self._changed.notify_all()

    def give_back(self, number: str) -> None:
        """Give a GPU to those who wait."""
        with self._changed:
            if (held := self._taken.pop(number, None)) is not None:
                held.close()
            self._changed.notify_all()

    def _try(self, turn: object) -> str | None:
        """Take a GPU that nobody has and nobody before wants, and return its number."""
        wanted: set[str] = set()
        for each, numbers in self._queue:
            if each is turn:
                return next((number for number in numbers if number not in wanted and self._lock(number)), None)
            wanted |= set(numbers)
        return None

    def _lock(self, number: str) -> bool:
        """Take a GPU, and say whether neither this process nor another one had it."""
        if number in self._taken:
            return False
        held = ExitStack()
        try:
            held.enter_context(try_locked(_file(number)))
        except BlockingIOError:
            return False
        self._taken[number] = held
        return True


def _file(number: str) -> Path:
    """Return the lock file of a GPU of this machine, by its name for all processes, whatever each of them sees."""
    machine = _MACHINE.read_text(encoding="ascii").strip()
    return home() / "gpus" / machine / visible_as(number).replace("/", "_")


def number_of(device: str) -> str:
    """Return the number of a device `cuda` or `cuda:N`."""
    return device.partition(":")[2] or "0"


def visible_as(number: str) -> str:
    """Return what CUDA_VISIBLE_DEVICES must be for a process that sees only this GPU of those that this one sees."""
    seen = [each for each in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if each]
    return seen[int(number)] if int(number) < len(seen) else number
