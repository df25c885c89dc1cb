"""How an answer is scored: 1 if its first word is the sum, else 0."""

from collections.abc import Mapping, Sequence


def process_results(doc: Mapping[str, str], results: Sequence[str]) -> dict[str, float]:
    """Return the metrics of one item."""
    words = results[0].split()
    return {"acc": float(words[:1] == [doc["target"]])}
