"""An answer is right if what it says after its last "Answer:" is what reasoning-gym says, blanks and case aside."""

import re
from collections.abc import Mapping, Sequence

_MARK = re.compile(r"answer\**\s*:\**", re.IGNORECASE)


def process_results(doc: Mapping[str, str], results: Sequence[str]) -> dict[str, float]:
    """Score one answer; without the mark, its last lines count, as many as the right answer has."""
    *_, said = _MARK.split(results[0])
    lines = [line for line in said.strip().strip("`*$").splitlines() if line.strip(" `*$")]
    wanted = doc["target"].strip().splitlines()
    return {"acc": float([_plain(line) for line in lines[-len(wanted) :]] == [_plain(line) for line in wanted])}


def _plain(line: str) -> str:
    return " ".join(line.strip(" .`*$\"'").split()).casefold()
