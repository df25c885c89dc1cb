"""Lines of JSON to and from a process that may not answer, may answer too much, or may answer nonsense."""

import contextlib
import json
import math
import os
import select
import time
from typing import IO, Any, Protocol

_PIECE = 2**16


class Process(Protocol):
    """A process with pipes, as `subprocess.Popen` has them."""

    @property
    def stdin(self) -> IO[bytes] | None:
        """Where its requests go."""

    @property
    def stdout(self) -> IO[bytes] | None:
        """Where its answers come from."""

    def kill(self) -> None:
        """Kill it, and all that it started."""

    def wait(self) -> Any:
        """Wait until it has ended."""


class NoAnswerError(Exception):
    """A process that did not answer as it should; the message says what it did instead."""


class Channel:
    """This side of the pipes. Nothing that the process does can block longer than the deadline, or fill the memory."""

    def __init__(self, process: Process, answer_bytes: int) -> None:
        """Take over the process. An answer may have `answer_bytes` at most."""
        assert process.stdin is not None and process.stdout is not None
        self._process, self._limit = process, answer_bytes
        self._streams = (process.stdin, process.stdout)
        self._requests, self._answers = (stream.fileno() for stream in self._streams)
        os.set_blocking(self._requests, False)
        self._kept = b""

    def ask(self, request: Any, deadline: float) -> Any:
        """Send a request and return the answer; `deadline` is a time of `time.monotonic`.

        Raises:
            NoAnswerError: the deadline passed, the process ended, or wrote something that is not an answer.
        """
        self._send(json.dumps(request).encode() + b"\n", deadline)
        line = self._line(deadline)
        try:
            answer = json.loads(line)
        except (ValueError, RecursionError):
            raise NoAnswerError("it wrote something that is not an answer") from None
        if not isinstance(answer, dict):
            raise NoAnswerError("it wrote something that is not an answer")
        return answer

    def close(self) -> None:
        """Kill the process and wait until it is gone."""
        self._process.kill()
        self._process.wait()
        for stream in self._streams:
            with contextlib.suppress(OSError):
                stream.close()

    def _send(self, data: bytes, deadline: float) -> None:
        rest = memoryview(data)
        while rest:
            _wait(self._requests, select.POLLOUT, deadline)
            try:
                rest = rest[os.write(self._requests, rest[:_PIECE]) :]
            except BlockingIOError:
                continue
            except OSError:
                raise NoAnswerError("it has ended") from None

    def _line(self, deadline: float) -> bytes:
        while b"\n" not in self._kept:
            if len(self._kept) > self._limit:
                raise NoAnswerError(f"it wrote an answer of more than {self._limit} bytes")
            _wait(self._answers, select.POLLIN, deadline)
            piece = os.read(self._answers, _PIECE)
            if not piece:
                raise NoAnswerError("it has ended")
            self._kept += piece
        line, _, self._kept = self._kept.partition(b"\n")
        return line


def _wait(descriptor: int, event: int, deadline: float) -> None:
    left = deadline - time.monotonic()
    poll = select.poll()
    poll.register(descriptor, event)
    if left <= 0 or not poll.poll(math.ceil(1000 * left)):
        raise NoAnswerError("it took too long")
