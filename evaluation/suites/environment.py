"""Environments: worlds in which a suite lets a model act, one answer after the other."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from evaluation.suites.functions import FunctionReference


@dataclass(frozen=True)
class Reply:
    """What an environment says to an answer.

    Attributes:
        text: what the model is told next.
        score: in [0, 1], if the item is over; then the model is asked nothing more.
        forget: whether the model is told the text alone, without what was said before.
    """

    text: str = ""
    score: float | None = None
    forget: bool = False


class Environment(Protocol):
    """A world for one item. What it says depends on the item and on the answers alone.

    The task's prompt, made of the item, is the first thing that the model is told.
    """

    def reset(self, item: Mapping[str, Any]) -> None:
        """Begin the item."""

    def step(self, answer: str) -> Reply:
        """Take an answer, which may be any text."""


@dataclass(frozen=True)
class World:
    """The environment of a suite.

    Attributes:
        reference: what makes an environment; it is called without arguments for every item.
        turns: the most answers to an item. An item that is not over then scores 0.
    """

    reference: FunctionReference
    turns: int

    def load(self) -> Callable[[], Environment]:
        """Return what makes an environment; InputError if it cannot be imported."""
        return self.reference.load()
