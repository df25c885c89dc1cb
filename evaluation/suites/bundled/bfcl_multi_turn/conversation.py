"""The user of an item, who asks one request after the other, and the worlds that calls change.

An answer with calls is told what they told. One without ends the request. Then the worlds have to be as they are after
the right calls, and what the right calls tell must have been told, as BFCL's checker has it.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from evaluation.suites.bundled.bfcl.calls import calls_in
from evaluation.suites.bundled.bfcl_multi_turn.execution import Worlds
from evaluation.suites.environment import Reply

_MOST_STEPS = 20  # with calls, for one request


class User:
    """See `evaluation.suites.environment.Environment`."""

    def reset(self, item: Mapping[str, Any]) -> None:
        """Begin with the first request, which is the prompt."""
        self._requests: list[str] = item["requests"]
        self._right_calls: list[list[Any]] = item["right_calls"]
        self._worlds, self._right = Worlds(item["initial"]), Worlds(item["initial"])
        self._told: list[str] = []
        self._turn = self._steps = 0

    def step(self, answer: str) -> Reply:
        """Run the calls of an answer, or go on to the next request."""
        calls = calls_in(answer)
        if not calls:
            return self._next()
        told = self._worlds.run([(name, (), arguments) for name, arguments in calls])
        self._told += told
        self._steps += 1
        if self._steps > _MOST_STEPS:
            return Reply(score=0.0)
        return Reply("\n".join(f"{name}: {result}" for (name, _), result in zip(calls, told, strict=True)))

    def _next(self) -> Reply:
        if not self._is_right():
            return Reply(score=0.0)
        self._turn += 1
        self._steps = 0
        if self._turn == len(self._right_calls):
            return Reply(score=1.0)
        return Reply(self._requests[self._turn])

    def _is_right(self) -> bool:
        calls = self._right_calls[self._turn]
        wanted = self._right.run(calls)
        if not calls:  # what was asked for cannot be done yet
            return True
        missing = Counter(wanted) - Counter(self._told)
        return self._steps > 0 and not missing and self._worlds.state() == self._right.state()
