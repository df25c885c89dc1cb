"""The *functions* domain: write a one-line Python function that does what a sentence says.

    Write a one-line Python function f(x) that returns x times 7 minus 12. Reply with the code only.

A function is scored on inputs that the prompt does not show.
"""

import random
from collections.abc import Callable, Sequence
from typing import Any

from examples.smollm2.domains.item import Doc, Domain
from examples.smollm2.suites.functions import scoring

TESTS = 5  # inputs that a function is scored on
WORDS = ("sun", "sea", "box", "cat", "tree", "lamp", "door", "rain", "leaf", "star")
# A sentence and its function. {a} and {b} are different numbers, {n} is a small one, and {w} is a word.
NUMBERS = (
    ("x plus {a}", "x + {a}"),
    ("x minus {a}", "x - {a}"),
    ("x times {a}", "x * {a}"),
    ("x times {a} plus {b}", "x * {a} + {b}"),
    ("x times {a} minus {b}", "x * {a} - {b}"),
    ("the square of x plus {a}", "x ** 2 + {a}"),
    ("the remainder of x divided by {a}", "x % {a}"),
    ("the larger of x and {a}", "max(x, {a})"),
    ("the smaller of x and {a}", "min(x, {a})"),
    ("True if x is greater than {a}, and False otherwise", "x > {a}"),
)
STRINGS = (
    ("the first {n} characters of the string x", "x[:{n}]"),
    ("the last {n} characters of the string x", "x[-{n}:]"),
    ("the string x repeated {n} times", "x * {n}"),
    ("the string x followed by '{w}'", "x + '{w}'"),
    ("the string x in upper case followed by '{w}'", "x.upper() + '{w}'"),
    ("the length of the string x plus {a}", "len(x) + {a}"),
)
LISTS = (
    ("the sum of the list x plus {a}", "sum(x) + {a}"),
    ("the largest element of the list x plus {a}", "max(x) + {a}"),
    ("the smallest element of the list x minus {a}", "min(x) - {a}"),
    ("the first {n} elements of the list x", "x[:{n}]"),
    ("the length of the list x times {a}", "len(x) * {a}"),
    ("a list of the elements of x, each times {a}", "[i * {a} for i in x]"),
)


def draw(rng: random.Random) -> Doc:
    """Draw a kind of input, a sentence about it, and the tests of the function."""
    sentences, make = rng.choice(_KINDS)
    sentence, expression = rng.choice(sentences)
    a, b = rng.sample(range(2, 100), 2)
    blanks = {"a": a, "b": b, "n": rng.randint(2, 5), "w": rng.choice(WORDS)}
    target = f"lambda x: {expression.format(**blanks)}"
    function = scoring.read_function(target)
    return {
        "prompt": f"Write a one-line Python function f(x) that returns {sentence.format(**blanks)}. "
        "Reply with the code only.",
        "target": target,
        "tests": [[x, scoring.run_function(function, x)] for x in make(rng)],
    }


def _numbers(rng: random.Random) -> list[int]:
    # The first two lie below and above every number of a sentence.
    return [0, 250, *(rng.randint(1, 249) for _ in range(TESTS - 2))]


def _strings(rng: random.Random) -> list[str]:
    return ["".join(rng.choices("abcdefgh", k=rng.randint(6, 9))) for _ in range(TESTS)]


def _lists(rng: random.Random) -> list[list[int]]:
    return [[rng.randint(0, 99) for _ in range(rng.randint(6, 9))] for _ in range(TESTS)]


_KINDS: tuple[tuple[tuple[tuple[str, str], ...], Callable[[random.Random], Sequence[Any]]], ...] = (
    (NUMBERS, _numbers),
    (STRINGS, _strings),
    (LISTS, _lists),
)

DOMAIN = Domain("functions", draw, scoring.score, scoring.MAX_NEW_TOKENS)
