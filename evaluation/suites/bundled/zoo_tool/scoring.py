"""Score of the *tool* domain: the completion calls the right function with the right arguments.

Calls are compared as parsed structures, in the spirit of the AST check of BFCL (Patil et al. 2025), so the order
of the arguments and blanks around them do not matter; everything else does. A call of a function that was not
offered, a missing, surplus or repeated argument, or any text around the call scores 0.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

MAX_NEW_TOKENS = 16
_MAX_CHARS = 200
_CALL = re.compile(r" *([a-z][a-z0-9_]*) *\(([^()]*)\) *", re.ASCII)
_ARGUMENT = re.compile(r" *([a-z][a-z0-9_]*) *= *([a-z0-9_]+) *", re.ASCII)


def parse_call(text: str) -> tuple[str, dict[str, str]] | None:
    """Return the function's name and its arguments by keyword, or None if `text` is not exactly one such call."""
    if len(text) > _MAX_CHARS:
        return None
    call = _CALL.fullmatch(text)
    if call is None:
        return None
    arguments: dict[str, str] = {}
    for part in call[2].split(","):
        argument = _ARGUMENT.fullmatch(part)
        if argument is None or argument[1] in arguments:
            return None
        arguments[argument[1]] = argument[2]
    return call[1], arguments


def score(doc: Mapping[str, Any], completion: str) -> float:
    """Return 1.0 if `completion` is the call that `doc` asks for, else 0.0; no completion makes it raise.

    `doc` has the keys `function` (str) and `arguments` (dict of str to str).
    """
    call = parse_call(completion.strip("\n"))
    return float(call == (doc["function"], doc["arguments"]))


def process_results(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """Score the one completion of an lm-eval request."""
    return {"acc": score(doc, results[0])}
