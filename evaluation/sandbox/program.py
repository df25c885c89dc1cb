"""One program of a model in a sandbox."""

import secrets
from typing import Any, Protocol

from evaluation.sandbox.channel import Channel, NoAnswerError, Process
from evaluation.sandbox.limits import Limits


class Starts(Protocol):
    """A sandbox."""

    def start(self) -> Process:
        """Start what `evaluation.sandbox.inside` describes."""


class Program:
    """A program in a sandbox, with one function that can be called."""

    def __init__(self, sandbox: Starts, source: str, function: str, limits: Limits) -> None:
        """Start a process in the sandbox. The program runs when it is first called."""
        self._channel = Channel(sandbox.start(), limits.answer_bytes)
        self._start = {"source": source, "limits": limits.resources()}
        self._function = function
        self._started = False

    def call(self, arguments: Any, deadline: float) -> dict[str, Any]:
        """Return {"value": ...} or {"error": ...} of a call with encoded arguments (see `evaluation.sandbox.inside`).

        Raises:
            NoAnswerError: the program did not answer with the nonce of this call.
        """
        if not self._started:
            self._ask(self._start, deadline)
            self._started = True
        return self._ask({"function": self._function, "arguments": arguments}, deadline)

    def close(self) -> None:
        """End the sandbox, with everything in it."""
        self._channel.close()

    def _ask(self, request: dict[str, Any], deadline: float) -> dict[str, Any]:
        nonce = secrets.token_hex(16)
        answer = self._channel.ask(request | {"nonce": nonce}, deadline)
        if answer.get("nonce") != nonce:
            raise NoAnswerError("it wrote something that is not an answer")
        return {"error": str(answer["error"])} if "error" in answer else {"value": answer.get("value")}
