"""Items that ask for one fact among many, at chosen lengths. All of them are made here, from seeds that are names.

Everything else in a prompt is a fact of the same kind, so no style sets the wanted one apart.
"""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise, product
from typing import Any

from evaluation.suites.format import Split

_TOKENS = {"lookup": 14, "overwritten": 16, "chained": 9}  # of a note, as SmolLM2's tokenizer counts, about
_HOPS = 3  # from the variable that is asked for to its number
_SYLLABLES = [first + second for first, second in product("bdfgklmnprstvz", "aeiou")]

Facts = tuple[list[str], str, str]


def items(lengths: Sequence[int], counts: Mapping[Split, int]) -> dict[Split, list[dict[str, Any]]]:
    """Return `counts[split]` items for each kind of fact and each length, in tokens, about; all notes in one prompt."""
    return {
        split: [
            {
                **known,
                "prompt": "\n".join(
                    ["Remember these notes.", "", *lines, "", f"{question} Answer with the number only."]
                ),
            }
            for known, lines, question in _facts(lengths, split, counts[split])
        ]
        for split in counts
    }


def items_in_parts(lengths: Sequence[int], counts: Mapping[Split, int], part: int) -> dict[Split, list[dict[str, Any]]]:
    """Return the same items with `parts` of the notes, of about `part` tokens, and the `question`."""
    return {
        split: [
            {**known, "question": question, "parts": _parts(lines, part // _TOKENS[known["kind"]])}
            for known, lines, question in _facts(lengths, split, counts[split])
        ]
        for split in counts
    }


def _facts(lengths: Sequence[int], split: Split, count: int) -> Iterator[tuple[dict[str, str], list[str], str]]:
    """Yield what is known of each item, its notes, and its question."""
    for number, kind, length in product(range(count), _KINDS, lengths):
        name = f"{split}-{number}"
        rng = random.Random(f"long_memory {kind} {length} {name}")
        lines, question, target = _KINDS[kind](rng, length // _TOKENS[kind])
        yield {"id": f"{kind}-{length}-{name}", "kind": kind, "target": target}, lines, question


def _parts(lines: Sequence[str], size: int) -> list[str]:
    return ["\n".join(lines[start : start + size]) for start in range(0, len(lines), size)]


def _lookup(rng: random.Random, notes: int) -> Facts:
    """Every name has one number."""
    known = [(name, _number(rng)) for name in _names(rng, notes)]
    name, number = rng.choice(known)
    return [f"The code of {name} is {number}." for name, number in known], f"What is the code of {name}?", number


def _overwritten(rng: random.Random, notes: int) -> Facts:
    """Names get numbers again and again; the last one counts."""
    several = list(_names(rng, max(4, notes // 10)))
    last: dict[str, str] = {}
    lines = []
    for name in (rng.choice(several) for _ in range(notes)):
        last[name] = _number(rng)
        lines.append(f"The balance of {name} is now {last[name]}.")
    name = rng.choice(sorted(last))
    return lines, f"What is the balance of {name} now?", last[name]


def _chained(rng: random.Random, notes: int) -> Facts:
    """Variables are set to numbers, or to other variables; all chains are of the same length, and mixed."""
    names = list(_names(rng, notes // (_HOPS + 1) * (_HOPS + 1)))
    chains = [names[start : start + _HOPS + 1] for start in range(0, len(names), _HOPS + 1)]
    numbers = [_number(rng) for _ in chains]
    place = {name: rng.random() for name in names}
    lines = {}
    for chain, number in zip(chains, numbers, strict=True):
        for order, name in zip(sorted(place[name] for name in chain), chain, strict=True):
            place[name] = order  # a variable is set before another is set to it
        lines[chain[0]] = f"{chain[0]} = {number}"
        lines |= {name: f"{name} = {before}" for before, name in pairwise(chain)}
    chosen = rng.randrange(len(chains))
    question = f"The notes set variables one after the other. Which number is {chains[chosen][-1]}?"
    return [lines[name] for name in sorted(names, key=place.__getitem__)], question, numbers[chosen]


def _names(rng: random.Random, count: int) -> Iterator[str]:
    seen: set[str] = set()
    while len(seen) < max(1, count):
        name = "".join(rng.choices(_SYLLABLES, k=3)).capitalize()
        if name not in seen:
            seen.add(name)
            yield name


def _number(rng: random.Random) -> str:
    return str(rng.randrange(10_000, 100_000))


_KINDS: dict[str, Callable[[random.Random, int], Facts]] = {
    "lookup": _lookup,
    "overwritten": _overwritten,
    "chained": _chained,
}
