"""Desks with chains of none to three locks. All of them are made here, from seeds that are names."""

import random
from collections.abc import Mapping
from typing import Any

from evaluation.suites.format import Split

_COUNTS: dict[Split, int] = {"validation": 20, "test": 40}
_LOCKS = (0, 1, 2, 3)
_DRAWERS = ("red", "blue", "green", "white", "black", "yellow", "brown", "grey")
# What is wanted in one split is never wanted in the other.
_THINGS: dict[Split, tuple[str, ...]] = {
    "validation": ("compass", "letter", "ribbon", "whistle", "magnet", "thimble", "candle", "ruler"),
    "test": (
        *("stamp", "ring", "lens", "coin", "map", "pencil", "bell", "dice"),
        *("medal", "feather", "ticket", "button", "marble", "needle", "photo", "shell"),
    ),
}
_PROMPT = """\
You are at a desk with {number} drawers: {drawers}. All are closed, and some may be locked.
Somebody asks you for the {wanted}.

You can call these functions:
open(drawer): open a drawer, and see what is in it
take(thing): take a thing out of an open drawer
unlock(drawer, key): unlock a drawer with a key that you hold; the key has the number of the lock
give(thing): give a thing that you hold to who asked; then you are done

Answer with calls, and with nothing else, in the form [open(drawer='{first}')]. You are told what happens."""


def items(_files: Mapping[str, bytes]) -> Mapping[Split, list[dict[str, Any]]]:
    """Return the items by split: for each number of locks the same count."""
    return {
        split: [_item(split, locks, number) for number in range(count) for locks in _LOCKS]
        for split, count in _COUNTS.items()
    }


def _item(split: Split, locks: int, number: int) -> dict[str, Any]:
    rng = random.Random(f"desk {split} {locks} {number}")
    drawers = rng.sample(_DRAWERS, 5)
    wanted, *others = rng.sample(_THINGS[split], 5)
    numbers = [str(each) for each in rng.sample(range(10, 100), locks + 1)]
    # The key of each locked drawer lies in the one before, and what is wanted in the last.
    chain = rng.sample(drawers, locks + 1)
    things: dict[str, list[str]] = {drawer: [] for drawer in drawers}
    for drawer, lock in zip(chain, numbers[:locks], strict=False):
        things[drawer].append(f"key {lock}")
    things[chain[-1]].append(wanted)
    for thing in (*others, f"key {numbers[-1]}"):  # a key that fits nowhere
        things[rng.choice(drawers)].append(thing)
    for content in things.values():
        rng.shuffle(content)
    shown = {"number": len(drawers), "drawers": ", ".join(drawers), "first": drawers[0]}
    return {
        "id": f"{locks}-{split}-{number}",
        "prompt": _PROMPT.format(wanted=wanted, **shown),
        "wanted": wanted,
        "things": things,
        "locks": dict(zip(chain[1:], numbers, strict=False)),
    }
