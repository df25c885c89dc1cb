"""Score of the *recall* domain: the completion names the value that was asked for, and no other value of the notes."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

MAX_NEW_TOKENS = 16
_WORD = re.compile(r"[a-z]+")


def score(doc: Mapping[str, Any], completion: str) -> float:
    """Return 1.0 if `doc["target"]` is the only one of `doc["values"]` in `completion`, else 0.0; it never raises.

    Case does not matter.
    """
    values = {value.lower() for value in doc["values"]}
    return float(values.intersection(_WORD.findall(completion.lower())) == {doc["target"].lower()})


def process_results(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """Score the one completion of an lm-eval request."""
    return {"acc": score(doc, results[0])}
