"""Score of the *code* domain: the completion is a program that does the right thing on held-out inputs.

A program is one expression over the string `x`, in a subset of Python: `x`, indices and slices with literal bounds
and steps, `+` of two strings, `*` of a string and an integer, parentheses. It is parsed to a syntax tree, which the
evaluator below walks; nothing is ever compiled or executed. The length of the text, every integer and every string
are bounded, so no completion can make the score raise, hang or use up memory.
"""

import ast
from collections.abc import Mapping, Sequence
from typing import Any

MAX_NEW_TOKENS = 16
_ALPHABET = frozenset("x0123456789[]:+-*() ")
_MAX_CHARS = 80
_MAX_INTEGER = 99
_MAX_STRING = 64


class ProgramError(Exception):
    """The text is not a program of the subset, or the program fails on this input."""


def run_program(text: str, x: str) -> str:
    """Return what the program `text` makes of the string `x`.

    Raises ProgramError if `text` is not in the subset, exceeds a bound, or indexes outside a string.
    """
    if len(text) > _MAX_CHARS or not _ALPHABET.issuperset(text):
        raise ProgramError("not a program of the subset")
    try:
        # Only a parse: the alphabet, without letters and quotes, leaves neither names, attributes, calls of
        # anything but `x`, nor literals other than integers.
        tree = ast.parse(text.strip(" "), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ProgramError("not an expression") from error
    return _string(tree.body, x)


def _string(node: ast.expr, x: str) -> str:
    match node:
        case ast.Name(id="x"):
            return x
        case ast.Subscript(value=value, slice=ast.Slice(lower=lower, upper=upper, step=step)):
            bounds = slice(_optional_integer(lower), _optional_integer(upper), _optional_integer(step))
            if bounds.step == 0:
                raise ProgramError("a slice steps by zero")
            return _string(value, x)[bounds]
        case ast.Subscript(value=value, slice=index):
            text, position = _string(value, x), _integer(index)
            if not -len(text) <= position < len(text):
                raise ProgramError("an index is outside its string")
            return text[position]
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return _bounded(_string(left, x) + _string(right, x))
        case ast.BinOp(left=left, op=ast.Mult(), right=right):
            return _bounded(_string(left, x) * _integer(right))
    raise ProgramError("an expression that is not in the subset")


def _bounded(text: str) -> str:
    if len(text) > _MAX_STRING:
        raise ProgramError("a string grew too long")
    return text


def _optional_integer(node: ast.expr | None) -> int | None:
    return None if node is None else _integer(node)


def _integer(node: ast.expr) -> int:
    match node:
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_integer(operand)
        case ast.Constant(value=int(value)) if value <= _MAX_INTEGER:
            return value
    raise ProgramError("not a small integer")


def score(doc: Mapping[str, Any], completion: str) -> float:
    """Return 1.0 if the program in `completion` gives the right output on every held-out input of `doc`, else 0.0.

    `doc["tests"]` holds pairs (input, output) of strings. No completion makes it raise.
    """
    program = completion.strip("\n")
    try:
        return float(all(run_program(program, x) == output for x, output in doc["tests"]))
    except ProgramError:
        return 0.0


def process_results(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """Score the one completion of an lm-eval request."""
    return {"acc": score(doc, results[0])}
