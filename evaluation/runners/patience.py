"""How long one call of a suite's own function may take: one that never returns must not hold up the next run."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, NoReturn

CALL_SECONDS = 300.0


class TookTooLongError(BaseException):
    """A call took too long. No Exception: a function that takes every error for a wrong answer must not catch it."""


def limited(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function with a limit on each call; TookTooLongError after CALL_SECONDS.

    The limit is an alarm, which only the main thread can set. So it holds in the processes that run models and in the
    command line, and not in a thread of a program that calls the library.
    """

    @wraps(function)
    def call(*arguments: Any, **named: Any) -> Any:
        with _alarm(function.__name__):
            return function(*arguments, **named)

    return call


@contextmanager
def _alarm(name: str) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def give_up(*_: object) -> NoReturn:
        raise TookTooLongError(f"one call of {name} took more than {CALL_SECONDS:g} s")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.setitimer(signal.ITIMER_REAL, CALL_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
