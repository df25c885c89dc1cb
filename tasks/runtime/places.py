"""Places for models, given in the order in which they were asked for."""

import threading
from collections import deque
from collections.abc import Callable


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
            try:
                given = self._changed.wait_for(lambda: self._queue[0] is turn and self._free >= places, timeout)
                self._free -= places if given else 0
                return given
            finally:  # also where an interrupt ends the wait
                self._queue.remove(turn)
                self._changed.notify_all()

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
