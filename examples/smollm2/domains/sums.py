"""The *sums* domain: a number of one digit and one of one or two digits are added.

What is the sum of 27 and 5?
"""

import random

from examples.smollm2.domains.item import Doc, Domain
from examples.smollm2.suites.sums import scoring

QUESTIONS = ("What is the sum of {} and {}?", "Complete: {} + {} =")
LARGEST = (39, 9)  # of the two numbers, in either order


def draw(rng: random.Random) -> Doc:
    """Draw a question and two numbers."""
    numbers = [rng.randint(1, largest) for largest in LARGEST]
    rng.shuffle(numbers)
    return {"prompt": rng.choice(QUESTIONS).format(*numbers), "target": str(sum(numbers))}


DOMAIN = Domain("sums", draw, scoring.score, scoring.MAX_NEW_TOKENS)
