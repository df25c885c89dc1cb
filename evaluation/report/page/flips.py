"""Items that one model solves and another does not, with what both wrote."""

import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

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
        ours, theirs: samples with `id`, `prompt`, `target`, `completion` and `score`, in one order of ids.
    """
    pairs = [(our, their) for our, their in zip(ours, theirs, strict=True) if our["score"] != their["score"]]
    pairs.sort(key=lambda pair: (pair[0]["score"] - pair[1]["score"], pair[0]["id"]))
    lost = [pair for pair in pairs if pair[0]["score"] < pair[1]["score"]][:_SHOWN]
    won = [pair for pair in pairs if pair[0]["score"] > pair[1]["score"]][-_SHOWN:]
    for our, their in [*lost, *won]:
        yield Flip(
            suite=suite,
            item=str(our["id"]),
            theirs_name=theirs_name,
            prompt=visible(our["prompt"]),
            target=visible(our["target"]),
            ours=visible(our["completion"]),
            theirs=visible(their["completion"]),
            ours_score=our["score"],
            theirs_score=their["score"],
        )


def visible(text: str, longest: int = _LONGEST) -> str:
    r"""Return a model's text with control and direction characters spelled out (\x1b), cut in its middle.

    The text is hostile: it may hold escapes that a terminal obeys, or marks that turn the page's text around.
    """
    if len(text) > longest:
        text = f"{text[: longest // 2]} […{len(text) - longest:,} more characters…] {text[-longest // 2 :]}"
    return "".join(_spelled(character) if _acts(character) else character for character in text)


def _acts(character: str) -> bool:
    return character not in "\n\t" and unicodedata.category(character) in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")


def _spelled(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
