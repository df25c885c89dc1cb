"""Score of the *memory* domain: the completion is the value that was stored last under the key asked for."""

from collections.abc import Mapping, Sequence
from typing import Any

MAX_NEW_TOKENS = 4


def score(doc: Mapping[str, Any], completion: str) -> float:
    """Return 1.0 if `completion`, blanks around it aside, is exactly `doc["target"]`, else 0.0; it never raises."""
    return float(completion.strip(" \n") == doc["target"])


def process_results(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """Score the one completion of an lm-eval request."""
    return {"acc": score(doc, results[0])}
