"""What the domains share: the item, and splits that can never contain the same prompt."""

import hashlib
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

Doc = dict[str, Any]  # an item as a suite stores it: "prompt", "target", and what the domain's score needs besides
Split = Literal["train", "validation", "test"]


@dataclass(frozen=True)
class Domain:
    """A domain: how its items are drawn, and how completions of their prompts are scored."""

    name: str
    draw: Callable[[random.Random], Doc]
    score: Callable[[Doc, str], float]
    max_new_tokens: int

    def stream(self, split: Split, seed: int) -> Iterator[Doc]:
        """Yield items of `split` without end, the same for a seed on every machine."""
        # random.Random hashes a str seed with SHA-512 and not with hash(), so PYTHONHASHSEED has no effect.
        rng = random.Random(f"smollm2/{self.name}/{split}/{seed}")
        while True:
            doc = self.draw(rng)
            if split_of(doc["prompt"]) == split:
                yield doc

    def held_out(self, split: Split, seed: int, count: int) -> list[Doc]:
        """Return `count` items of `split` whose prompts all differ."""
        distinct: dict[str, Doc] = {}
        for doc in self.stream(split, seed):
            distinct.setdefault(doc["prompt"], doc)
            if len(distinct) == count:
                break
        return list(distinct.values())


def split_of(prompt: str) -> Split:
    """Return the only split that may contain `prompt`. Its hash decides, so splits are disjoint by construction."""
    bucket = hashlib.sha256(prompt.encode()).digest()[0] % 16
    if bucket < 4:
        return "test"
    return "validation" if bucket < 6 else "train"
