"""GPUs, which the steps of one process share: each makes one merge or runs one model at a time."""

import os
import threading
from collections import deque
from collections.abc import Sequence


class Gpus:
    """Who has which GPU, by its number. They are given in the order in which they were asked for."""

    def __init__(self) -> None:
        self._taken: set[str] = set()
        self._queue: deque[tuple[object, Sequence[str]]] = deque()
        self._changed = threading.Condition()

    @property
    def waiting(self) -> int:
        """How many wait for a GPU."""
        return len(self._queue)

    def take(self, numbers: Sequence[str], timeout: float | None = None) -> str | None:
        """Wait for one of some GPUs, at most `timeout` seconds. Return its number, or None if none was given."""
        turn = object()
        with self._changed:
            self._queue.append((turn, numbers))
            self._changed.wait_for(lambda: self._free(turn) is not None, timeout)
            found = self._free(turn)
            self._queue = deque(each for each in self._queue if each[0] is not turn)
            if found is not None:
                self._taken.add(found)
            self._changed.notify_all()
            return found

    def give_back(self, number: str) -> None:
        """Give a GPU to those who wait."""
        with self._changed:
            self._taken.discard(number)
            self._changed.notify_all()

    def _free(self, turn: object) -> str | None:
        """Return a GPU that nobody has and nobody before wants."""
        wanted: set[str] = set()
        for each, numbers in self._queue:
            if each is turn:
                return next((number for number in numbers if number not in self._taken | wanted), None)
            wanted |= set(numbers)
        return None


def number_of(device: str) -> str:
    """Return the number of a device `cuda` or `cuda:N`."""
    return device.partition(":")[2] or "0"


def visible_as(number: str) -> str:
    """Return what CUDA_VISIBLE_DEVICES must be for a process that sees only this GPU of those that this one sees."""
    seen = [each for each in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if each]
    return seen[int(number)] if int(number) < len(seen) else number
