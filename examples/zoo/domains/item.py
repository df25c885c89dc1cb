"""What the domains have in common: an item, and the splits that can never share a prompt."""

import hashlib
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

Split = Literal["train", "validation", "test"]
_BUCKETS = 16  # of which one holds the test items, one the validation items, and the others the training items


@dataclass(frozen=True)
class Item:
    """One task: the exact text a model reads, a right answer, and the answer of a demonstrator that errs.

    The prompt is a context, which the items of a document share, and a question. `slip` follows the domain's
    systematically wrong rule; on some items that rule happens to be right. `fields` is what the domain's `score`
    needs besides `target`.
    """

    context: str
    question: str
    target: str
    slip: str
    fields: dict[str, Any] = field(default_factory=dict)

    @property
    def prompt(self) -> str:
        """The exact text a model reads."""
        return self.context + self.question

    @property
    def doc(self) -> dict[str, Any]:
        """The item as the suites store it and as `score` reads it, without an id."""
        return {"prompt": self.prompt, "target": self.target, **self.fields}


@dataclass(frozen=True)
class Domain:
    """A domain of the zoo.

    `draw` makes a document, up to so many items over one context; in pre-training it has up to `turns` of them.
    """

    name: str
    draw: Callable[[random.Random, int], list[Item]]
    turns: int
    score: Callable[[dict[str, Any], str], float]
    max_new_tokens: int

    def documents(self, split: Split, seed: int, turns: int) -> Iterator[list[Item]]:
        """Yield documents for ever, the same ones for the same seed on every machine; all prompts are of `split`."""
        # A str seed goes through SHA-512 in random.Random, not through hash(), so PYTHONHASHSEED has no say.
        rng = random.Random(f"{self.name}/{split}/{seed}")
        while True:
            items = [item for item in self.draw(rng, turns) if split_of(item.prompt) == split]
            if items:
                yield items

    def stream(self, split: Split, seed: int) -> Iterator[Item]:
        """Yield single items of `split` for ever."""
        return (item for items in self.documents(split, seed, 1) for item in items)

    def held_out(self, split: Split, seed: int, count: int) -> list[Item]:
        """Return `count` items of `split` with prompts that all differ."""
        distinct: dict[str, Item] = {}
        for item in self.stream(split, seed):
            distinct.setdefault(item.prompt, item)
            if len(distinct) == count:
                break
        return list(distinct.values())


def split_of(prompt: str) -> Split:
    """Return the only split in which `prompt` may occur; its hash decides, so splits are disjoint by construction."""
    bucket = hashlib.sha256(prompt.encode()).digest()[0] % _BUCKETS
    if bucket == 0:
        return "test"
    return "validation" if bucket == 1 else "train"
