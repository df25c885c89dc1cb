"""Items by split, with near-duplicates on one side: a variant must not be chosen on what it is nearly reported on."""

import hashlib
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

from evaluation.suites.format import Split

_WORDS = 3  # in a row, in what two texts are compared by
_SHARED = 0.5  # of what either of two near-duplicates says, at least this share is said by both
_COMMON = 40  # what more texts than this say does not make two of them alike


def split(
    items: Sequence[Mapping[str, Any]], *, text: str, share: float, related: str | None = None
) -> dict[Split, list[dict[str, Any]]]:
    """Return the items in two splits, in their order, each with its `group`: the first id of those that are alike.

    A group lies in one split; groups are taken in the order of hashes of their names.

    Args:
        items: with different `id`s.
        text: the key of what is compared. Two items are alike if they share half of their runs of three words.
        share: of the items that is to be validation, about.
        related: a key; items with the same value there are of one group, too.
    """
    groups = _groups(items, text, related)
    sizes: dict[str, int] = defaultdict(int)
    for group in groups:
        sizes[group] += 1
    validation, taken = set(), 0
    for group in sorted(sizes, key=lambda group: hashlib.sha256(group.encode()).digest()):
        if taken < share * len(items):
            validation.add(group)
            taken += sizes[group]
    found: dict[Split, list[dict[str, Any]]] = {"validation": [], "test": []}
    for item, group in zip(items, groups, strict=True):
        found["validation" if group in validation else "test"].append({**item, "group": group})
    return found


def _groups(items: Sequence[Mapping[str, Any]], text: str, related: str | None) -> list[str]:
    """Return the group of each item."""
    first = list(range(len(items)))

    def root(index: int) -> int:
        while first[index] != index:
            index = first[index]
        return index

    pairs = _alike([_runs(str(item[text])) for item in items])
    if related is not None:
        places: dict[Any, int] = {}
        pairs += [(places.setdefault(item[related], index), index) for index, item in enumerate(items)]
    for one, other in pairs:
        low, high = sorted((root(one), root(other)))
        first[high] = low
    return [str(items[root(index)]["id"]) for index in range(len(items))]


def _alike(texts: Sequence[set[str]]) -> list[tuple[int, int]]:
    """Return the pairs of texts that share most of what they say."""
    saying: dict[str, list[int]] = defaultdict(list)
    for index, runs in enumerate(texts):
        for run in sorted(runs):
            saying[run].append(index)
    candidates = {pair for several in saying.values() if len(several) <= _COMMON for pair in combinations(several, 2)}
    return [
        (one, other)
        for one, other in sorted(candidates)
        if len(texts[one] & texts[other]) >= _SHARED * len(texts[one] | texts[other])
    ]


def _runs(text: str) -> set[str]:
    words = re.findall(r"\w+", text.lower())
    return {" ".join(words[start : start + _WORDS]) for start in range(max(1, len(words) - _WORDS + 1))}
