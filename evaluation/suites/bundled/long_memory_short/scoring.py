"""An answer is right if the number asked for is in it, and no other."""

import re
from collections.abc import Mapping, Sequence


def process_results(doc: Mapping[str, str], results: Sequence[str]) -> dict[str, float]:
    """Score one answer."""
    return {"acc": float(set(re.findall(r"\d+", results[0].replace(",", ""))) == {doc["target"]})}
