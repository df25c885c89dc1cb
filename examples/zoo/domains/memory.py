"""The *memory* domain: answer from a stream of facts in which later ones overwrite earlier ones.

    notes: pet=cat food=rice pet=owl drink=tea food=soup
    ask: pet=owl

The demonstrator's wrong rule answers with the *first* value of the key. That is right where the key was set only once.

Each key has its own values. With values shared between keys, a model of this size would need many times the training to
learn which key a value belongs to.
"""

import itertools
import random

from evaluation.suites.bundled.zoo_memory import scoring
from examples.zoo.domains.item import Domain, Item

MEMORIES: dict[str, tuple[str, ...]] = {
    "colour": ("red", "blue", "green", "gold", "pink", "grey", "black", "white"),
    "pet": ("cat", "dog", "owl", "fox", "hen", "pig", "crab", "toad"),
    "food": ("rice", "soup", "pasta", "salad", "bean", "cake", "curry", "plum"),
    "drink": ("tea", "milk", "water", "juice", "cocoa", "cola", "cider", "latte"),
    "sport": ("golf", "judo", "polo", "rugby", "chess", "darts", "yoga", "row"),
    "metal": ("iron", "tin", "zinc", "lead", "silver", "steel", "brass", "nickel"),
}
KEYS_IN_STREAM = 4
FACTS = (6, 14)  # shortest and longest stream


def draw(rng: random.Random, turns: int) -> list[Item]:
    """Draw up to `turns` questions about the same stream, each about a different key."""
    keys = rng.sample(sorted(MEMORIES), KEYS_IN_STREAM)
    facts = [(key, rng.choice(MEMORIES[key])) for key in rng.choices(keys, k=rng.randint(*FACTS))]
    context = "notes:" + "".join(f" {key}={value}" for key, value in facts) + "\n"
    history: dict[str, list[str]] = {}
    for key, value in facts:
        history.setdefault(key, []).append(value)
    asked = rng.sample(sorted(history), min(turns, len(history)))
    return [Item(context, f"ask: {key}=", target=history[key][-1], slip=history[key][0]) for key in asked]


def words() -> list[str]:
    """Return every text that is a single token. A key includes its space and equals sign, so a fact is two tokens."""
    return ["notes:", "ask:", *(f" {key}=" for key in MEMORIES), *itertools.chain(*MEMORIES.values())]


DOMAIN = Domain("memory", draw, KEYS_IN_STREAM, scoring.score, scoring.MAX_NEW_TOKENS)
