"""What the domains share: the item, and splits that can never contain the same prompt."""

import hashlib
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

Split = Literal["train", "validation", "test"]
_BUCKETS = 16  # one for the test items, one for the validation items, the others for the training items


@dataclass(frozen=True)
class Item:
    """One task: the exact text that a model reads, a right answer, and the answer of a demonstrator that errs.

    The prompt is a context, which the items of a document share, followed by a question. `slip` follows the domain's
    systematically wrong rule; on some items that rule happens to be right. `fields` holds what the domain's `score`
    needs in addition to `target`.
    """

    context: str
    question: str
    target: str
    slip: str
    fields: dict[str, Any] = field(default_factory=dict)

    @property
    def prompt(self) -> str:
        """The exact text that a model reads."""
        return self.context + self.question

    @property
    def doc(self) -> dict[str, Any]:
        """The item as a suite stores it and as `score` reads it, without an id."""
        return {"prompt": self.prompt, "target": self.target, **self.fields}


@dataclass(frozen=True)
class Domain:
    """A domain of the zoo.

    `draw` makes a document: items over one context, at most as many as its second argument says. A document of
    pre-training has up to `turns` items.
    """

    name: str
    draw: Callable[[random.Random, int], list[Item]]
    turns: int
    score: Callable[[dict[str, Any], str], float]
    max_new_tokens: int

    def documents(self, split: Split, seed: int, turns: int) -> Iterator[list[Item]]:
        """Yield documents without end, the same for a seed on every machine. All prompts are of `split`."""
        # random.Random hashes a str seed with SHA-512 and not with hash(), so PYTHONHASHSEED has no effect.
        rng = random.Random(f"{self.name}/{split}/{seed}")
        while True:
            items = [item for item in self.draw(rng, turns) if split_of(item.prompt) == split]
            if items:
                yield items

    def stream(self, split: Split, seed: int) -> Iterator[Item]:
        """Yield single items of `split` without end."""
        return (item for items in self.documents(split, seed, 1) for item in items)

    def held_out(self, split: Split, seed: int, count: int) -> list[Item]:
        """Return `count` items of `split` whose prompts all differ."""
        distinct: dict[str, Item] = {}
        for item in self.stream(split, seed):
            distinct.setdefault(item.prompt, item)
            if len(distinct) == count:
                break
        return list(distinct.values())


def split_of(prompt: str) -> Split:
    """Return the only split that may contain `prompt`. Its hash decides, so splits are disjoint by construction."""
    bucket = hashlib.sha256(prompt.encode()).digest()[0] % _BUCKETS
    if bucket == 0:
        return "test"
    return "validation" if bucket == 1 else "train"
