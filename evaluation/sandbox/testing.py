"""Whether a program passes tests: both run in sandboxes, and neither meets the other."""

import threading
import time
from typing import Any

from evaluation.sandbox.channel import Channel, NoAnswerError
from evaluation.sandbox.finding import find_sandbox
from evaluation.sandbox.limits import USUAL
from evaluation.sandbox.program import Program


def run_tests(source: str, function: str, tests: str) -> str | None:
    """Return why the function of a program fails tests, in a few words, or None if it passes.

    The program's sandbox gets the arguments of each call, and nothing else of the tests. What a call returned counts as
    plain data, which the tests compare in their own sandbox. So a program can only pass by giving the right values:
    what it prints, how it exits, and what its objects say about themselves, is not asked for. The tests have the wall
    time that the program has.

    Args:
        source: the program, Python.
        function: the name of the function in it that is tested.
        tests: Python that defines `check(candidate)`, which raises an error if `candidate` is wrong. It is trusted more
            than the program, and less than this process.

    Raises:
        InputError: no sandbox works on this machine.
    """
    deadline = time.monotonic() + USUAL.seconds
    program = Program(find_sandbox(), source, function, USUAL)
    try:
        return _TESTS.run(tests, program, deadline)
    finally:
        program.close()


class _Tests(threading.local):
    """A sandbox that runs tests, one after the other, so that it starts once for many programs.

    Each thread has its own, because a sandbox dies with the thread that started it.
    """

    def __init__(self) -> None:
        self._channel: Channel | None = None

    def run(self, tests: str, program: Program, deadline: float) -> str | None:
        """Return why the program fails the tests, or None."""
        request: dict[str, Any] = {"tests": tests}
        if self._channel is None:
            self._channel = Channel(find_sandbox().start(), USUAL.answer_bytes)
            request["limits"] = USUAL.resources() | {"RLIMIT_CPU": 2**31}  # it serves many programs
        try:
            answer = self._channel.ask(request, deadline)
            while "call" in answer:
                answer = self._channel.ask(program.call(answer["call"], deadline), deadline)
        except NoAnswerError as error:
            self._channel.close()  # it may be in the middle of a test
            self._channel = None
            return str(error)
        failed = answer["failed"]
        return None if failed is None else str(failed)


_TESTS = _Tests()
