"""The *recall* domain: answer from notes about two people.

Emma lives in Paris. Mark eats soup. Emma eats rice. Mark lives in Rome.
What does Mark eat?
"""

import random

from examples.smollm2.domains.item import Doc, Domain
from examples.smollm2.suites.recall import scoring

PEOPLE = ("Anna", "Ben", "Clara", "David", "Emma", "Felix", "Grace", "Henry", "Iris", "Jack", "Laura", "Mark")
# What is noted: the note, the question, and what may stand in them. No value belongs to two kinds of note.
KINDS = (
    ("lives in", "Where does {} live?", "Paris London Rome Berlin Madrid Tokyo Cairo Boston"),
    ("has a", "Which animal does {} have?", "dog cat horse rabbit parrot goat hamster turtle"),
    ("likes the color", "Which color does {} like?", "red blue green yellow black white orange purple"),
    ("eats", "What does {} eat?", "pizza soup rice bread cheese salad pasta cake"),
    ("works as a", "What is the job of {}?", "baker doctor teacher farmer lawyer painter nurse pilot"),
)
NOTED = 2  # kinds of note about each of the two


def draw(rng: random.Random) -> Doc:
    """Draw notes about two people in any order, and a question about one of them."""
    people, kinds = rng.sample(PEOPLE, 2), rng.sample(KINDS, NOTED)
    notes, values = [], {}
    for verb, question, choices in kinds:
        for person, value in zip(people, rng.sample(choices.split(), len(people)), strict=True):
            notes.append(f"{person} {verb} {value}.")
            values[question.format(person)] = value
    rng.shuffle(notes)
    asked = rng.choice(list(values))
    return {
        "prompt": f"{' '.join(notes)}\n{asked}",
        "target": values[asked],
        "values": sorted(values.values()),
    }


DOMAIN = Domain("recall", draw, scoring.score, scoring.MAX_NEW_TOKENS)
