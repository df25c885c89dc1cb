"""A desk: calls open and unlock drawers, take what is in them, and give what is wanted."""

from collections.abc import Callable, Mapping
from typing import Any

from evaluation.suites.bundled.bfcl.calls import calls_in
from evaluation.suites.environment import Reply

_NO_CALL = "That is no call. Answer with one, such as [open(drawer='red')]."


class Desk:
    """See `evaluation.suites.environment.Environment`."""

    def reset(self, item: Mapping[str, Any]) -> None:
        """Close all drawers."""
        self._wanted: str = item["wanted"]
        self._things = {name: list(things) for name, things in item["things"].items()}
        self._locks: dict[str, str] = dict(item["locks"])
        self._open: set[str] = set()
        self._held: list[str] = []

    def step(self, answer: str) -> Reply:
        """Do what the calls of an answer say, until something is given."""
        told = []
        for name, arguments in calls_in(answer) or []:
            if name == "give" and (thing := arguments.get("thing")) in self._held:
                return Reply(score=float(thing == self._wanted))
            told.append(self._do(name, {key: str(value) for key, value in arguments.items()}))
        return Reply("\n".join(told) or _NO_CALL)

    def _do(self, name: str, arguments: dict[str, str]) -> str:
        known: dict[str, Callable[..., str]] = {
            "open": self._pull,
            "unlock": self._unlock,
            "take": self._take,
            "give": lambda thing: f"You do not hold: {thing}.",
        }
        if name not in known:
            return f"There is no function {name}."
        try:
            return known[name](**arguments)
        except TypeError:
            return f"The arguments of {name} are not right."

    def _pull(self, drawer: str) -> str:
        if drawer not in self._things:
            return f"There is no {drawer} drawer."
        if drawer in self._locks:
            return f"The {drawer} drawer is locked. On its lock is the number {self._locks[drawer]}."
        self._open.add(drawer)
        return f"In the {drawer} drawer: {', '.join(self._things[drawer]) or 'nothing'}."

    def _unlock(self, drawer: str, key: str) -> str:
        if key not in self._held:
            return f"You do not hold: {key}."
        if drawer not in self._locks:
            return f"There is no locked {drawer} drawer."
        if key != f"key {self._locks[drawer]}":
            return f"The {key} does not fit."
        del self._locks[drawer]
        return f"The {drawer} drawer is unlocked."

    def _take(self, thing: str) -> str:
        for drawer in sorted(self._open):
            if thing in self._things[drawer]:
                self._things[drawer].remove(thing)
                self._held.append(thing)
                return f"You hold: {', '.join(self._held)}."
        return f"In no open drawer: {thing}."
