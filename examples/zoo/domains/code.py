"""The *code* domain: write a program that turns the string x into y, given two examples.

A program is one slice of x or the sum of two. It is scored on strings that the prompt does not show:

    x:bfk cej
    y:fkb ejc
    y=x[1:3]+x[0:1]

The demonstrator's wrong rule is a fence-post error: every slice takes one element too many at its end. The answer is
still right where all slices end with the string.

Each place of a string has its own set of letters. With any letter in any place, a model of this size would need many
times the training to find out which place a letter came from.
"""

import random

from evaluation.suites.bundled.zoo_code import scoring
from examples.zoo.domains.item import Domain, Item

LETTERS = ("abcd", "efgh", "ijkl", "mnop", "qrst")  # possible letters of a string's first place, second place, ...
LENGTHS = (3, 4, 5)  # of a string; all strings of an item have the same length
LONGEST_SLICE = 4
EXAMPLES = 2
TESTS = 5  # held-out inputs that a program is scored on

_Slice = tuple[int, int]


def draw(rng: random.Random, turns: int) -> list[Item]:
    """Draw `turns` programs over the same example inputs."""
    length = rng.choice(LENGTHS)
    inputs = [_draw_string(rng, length) for _ in range(EXAMPLES)]
    items = []
    for _ in range(turns):
        slices = _draw_slices(rng, length)
        program = _program(slices)
        held_out = [_draw_string(rng, length) for _ in range(TESTS)]
        items.append(
            Item(
                context=f"x:{' '.join(inputs)}\n",
                question=f"y:{' '.join(scoring.run_program(program, x) for x in inputs)}\ny=",
                target=program,
                slip=_program([(start, end + 1) for start, end in slices]),
                fields={"tests": [[x, scoring.run_program(program, x)] for x in held_out]},
            )
        )
    return items


def _draw_string(rng: random.Random, length: int) -> str:
    return "".join(rng.choice(letters) for letters in LETTERS[:length])


def _draw_slices(rng: random.Random, length: int) -> list[_Slice]:
    first = _draw_slice(rng, length)
    if rng.random() < 0.3:
        return [first]
    second = _draw_slice(rng, length)
    while second[0] == first[1]:  # two adjacent slices would be the same as one
        second = _draw_slice(rng, length)
    return [first, second]


def _draw_slice(rng: random.Random, length: int) -> _Slice:
    start = rng.randrange(length)
    end = rng.randint(start + 1, min(length, start + LONGEST_SLICE))
    return start, end


def _program(slices: list[_Slice]) -> str:
    return "+".join(f"x[{start}:{end}]" for start, end in slices)


def words() -> list[str]:
    """Return every text of more than one character that is a single token."""
    return ["x:", "y:", "y=", "x[", "]+x["]


DOMAIN = Domain("code", draw, 4, scoring.score, scoring.MAX_NEW_TOKENS)
