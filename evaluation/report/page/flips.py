"""Items that one model solves and another does not, with what both wrote."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evaluation.statistics.sample import NOISE

_LONGEST = 400
_SHOWN = 4


@dataclass(frozen=True)
class Flip:
    """One item that two models answer with different scores.

    Attributes:
        suite, item: which item.
        theirs_name: the model that the selected variant is compared with.
        prompt, target: the item.
        ours, theirs: completions.
        ours_score, theirs_score: in [0, 1].
    """

    suite: str
    item: str
    theirs_name: str
    prompt: str
    target: str
    ours: str
    theirs: str
    ours_score: float
    theirs_score: float

    @property
    def won(self) -> bool:
        """Whether the selected variant scores more."""
        return self.ours_score > self.theirs_score


def find_flips(
    suite: str, theirs_name: str, ours: Sequence[Mapping[str, Any]], theirs: Sequence[Mapping[str, Any]]
) -> Iterator[Flip]:
    """Yield the items that differ most: at most four that the variant lost, then at most four that it won.

    Args:
        suite: its name.
        theirs_name: the other model's name.
        ours: samples with `id`, `prompt`, `target`, `completion` and `score`.
        theirs: the other model's, in the same order of ids.
    """
    both = zip(ours, theirs, strict=True)
    pairs = [(our, their) for our, their in both if abs(our["score"] - their["score"]) > NOISE]
    pairs.sort(key=lambda pair: (pair[0]["score"] - pair[1]["score"], pair[0]["id"]))
    lost = [pair for pair in pairs if pair[0]["score"] < pair[1]["score"]][:_SHOWN]
    won = [pair for pair in pairs if pair[0]["score"] > pair[1]["score"]][-_SHOWN:]
    for our, their in [*lost, *won]:
        yield Flip(
            suite=suite,
            item=str(our["id"]),
            theirs_name=theirs_name,
            prompt=_cut(our["prompt"]),
            target=_cut(our["target"]),
            ours=_cut(our["completion"]),
            theirs=_cut(their["completion"]),
            ours_score=our["score"],
            theirs_score=their["score"],
        )


def read_samples(file: str | Path) -> list[dict[str, Any]]:
    """Return the samples of one model on one split of a suite, in the order of ids."""
    with Path(file).open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def _cut(text: str) -> str:
    left_out = len(text) - _LONGEST
    if left_out <= 0:
        return text
    half = _LONGEST // 2
    return f"{text[:half]} [… {left_out:,} more characters …] {text[-half:]}"
