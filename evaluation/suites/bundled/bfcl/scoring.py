"""An answer is right if its calls are those that are wanted."""

from collections.abc import Mapping, Sequence
from typing import Any

from evaluation.suites.bundled.bfcl.calls import calls_in
from evaluation.suites.bundled.bfcl.matching import all_match


def process_results(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """Score one answer."""
    calls = calls_in(results[0])
    return {"acc": float(calls is not None and all_match(doc["functions"], calls, doc["answers"]))}
