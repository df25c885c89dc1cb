"""A deadline for a piece of work."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def deadline(seconds: float, late: Callable[..., object], *arguments: Any) -> Iterator[None]:
    """Call `late` on a thread of its own if the context is not left within `seconds`."""
    timer = threading.Timer(seconds, late, arguments)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
