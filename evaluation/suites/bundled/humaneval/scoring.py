"""An answer is right if the function in it passes HumanEval's tests, which run apart from it in sandboxes."""

import re
from collections.abc import Mapping, Sequence

from evaluation.sandbox import run_tests

_BLOCK = re.compile(r"```(?:python|py)?[ \t]*\n(.*?)(?:```|\Z)", re.DOTALL | re.IGNORECASE)


def process_results(doc: Mapping[str, str], results: Sequence[str]) -> dict[str, float]:
    """Score one answer."""
    failed = run_tests(program(doc, results[0]), doc["function"], doc["tests"])
    return {"acc": float(failed is None)}


def program(doc: Mapping[str, str], answer: str) -> str:
    """Return the program that an answer stands for.

    That is the first code block that defines the function, or the answer itself if it has no such block, with the
    imports and the helpers of the prompt before it. An answer that does not define the function completes the prompt.
    """
    begins = re.compile(rf"^def {re.escape(doc['function'])}\(", re.MULTILINE)
    blocks = [block for block in _BLOCK.findall(answer) if begins.search(block)]
    code = blocks[0] if blocks else answer
    found = begins.search(doc["begun"])
    if begins.search(code):
        return doc["begun"][: found.start() if found else 0] + code
    return doc["begun"] + code
