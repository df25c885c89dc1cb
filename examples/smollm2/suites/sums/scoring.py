"""Score of the *sums* domain: the last number of the completion is the sum."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

MAX_NEW_TOKENS = 16
_NUMBER = re.compile(r"[0-9]+")


def score(doc: Mapping[str, Any], completion: str) -> float:
    """Return 1.0 if the last number in `completion` is `doc["target"]`, digit by digit, else 0.0; it never raises."""
    numbers = _NUMBER.findall(completion)
    return float(bool(numbers) and numbers[-1] == doc["target"])


def process_results(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """Score the one completion of an lm-eval request."""
    return {"acc": score(doc, results[0])}
