"""Prompts of our own: a topic, and one to three rules that do not contradict each other."""

import random
from collections.abc import Callable, Mapping
from typing import Any

from evaluation.suites.bundled.instructions.scoring import RULES
from evaluation.suites.format import Split
from evaluation.suites.making.splitting import split

_OF_A_TOPIC = 5
_VALIDATION = 1 / 3
_TASKS = ("Describe {0}.", "Explain {0} to a child.", "Write a short note about {0}.", "Give advice on {0}.")
_TOPICS = [
    "a bicycle",
    "a lighthouse",
    "tides",
    "bread",
    "a chess opening",
    "a city park",
    "sleep",
    "volcanoes",
    "a library",
    "honey bees",
    "rain",
    "a violin",
    "tea",
    "a market",
    "photosynthesis",
    "a railway station",
    "friendship",
    "snow",
    "a garden",
    "magnets",
    "a museum",
    "soap",
    "a river",
    "handwriting",
    "a harvest",
    "the moon",
    "a bridge",
    "patience",
    "salt",
    "a kite",
    "old maps",
    "a hospital",
    "coral reefs",
    "a compass",
    "laundry",
    "glass",
    "a mountain hut",
    "football",
    "spices",
    "a newspaper",
    "clouds",
    "an elevator",
    "paper",
    "a wedding",
    "batteries",
    "a desert",
    "dreams",
    "a bakery",
    "compost",
    "a lock and a key",
]
_WORDS = ("simple", "always", "people", "together", "small", "water", "time", "often")
_BEGINNINGS = ("In short", "Let us begin", "Many people think", "Once upon a time")
_ENDINGS = ("and that is all", "so try it yourself", "thank you for reading")
_KEYS = ("name", "summary", "use", "warning", "origin")

_Draw = Callable[[random.Random], dict[str, Any]]
# Of each row an item gets at most one rule, so that they do not contradict each other.
_ROWS: tuple[dict[str, _Draw], ...] = (
    {
        "bullets": lambda rng: {"count": rng.randint(2, 6)},
        "numbered": lambda rng: {"count": rng.randint(2, 6)},
        "paragraphs": lambda rng: {"count": rng.randint(2, 4)},
        "sentences": lambda rng: {"count": rng.randint(2, 6)},
    },
    {
        "at_most": lambda rng: {"count": rng.randrange(40, 90, 10)},
        "at_least": lambda rng: {"count": rng.randrange(60, 160, 20)},
    },
    {"lower": lambda _: {}, "upper": lambda _: {}, "no_comma": lambda _: {}},
    {
        "word": lambda rng: {"word": rng.choice(_WORDS), "count": rng.randint(2, 3)},
        "without": lambda rng: {"word": rng.choice(("the", "very", "but", "with"))},
        "title": lambda _: {},
        "blanks": lambda rng: {"count": rng.randint(1, 3)},
    },
    {
        "begins": lambda rng: {"words": rng.choice(_BEGINNINGS)},
        "ends": lambda rng: {"words": rng.choice(_ENDINGS)},
        "quoted": lambda _: {},
    },
)


def items(_files: Mapping[str, bytes]) -> Mapping[Split, list[dict[str, Any]]]:
    """Return the items by split; those of one topic lie in one."""
    made = [_item(topic, number) for number in range(_OF_A_TOPIC) for topic in _TOPICS]
    return split(made, text="topic", share=_VALIDATION, related="topic")


def _item(topic: str, number: int) -> dict[str, Any]:
    rng = random.Random(f"instructions {topic} {number}")
    rules = [_alone(rng)] if number == 0 else _several(rng, 1 + number % 3)
    words = [RULES[rule["rule"]].words.format(**rule["values"]) for rule in rules]
    return {
        "id": f"{topic.replace(' ', '-')}-{number}",
        "topic": topic,
        "prompt": " ".join([rng.choice(_TASKS).format(topic), *words]),
        "rules": rules,
        "target": " ".join(words),
    }


def _alone(rng: random.Random) -> dict[str, Any]:
    """Return the one rule that goes with no other."""
    return {"rule": "json", "values": {"keys": rng.sample(_KEYS, k=rng.randint(2, 4))}}


def _several(rng: random.Random, count: int) -> list[dict[str, Any]]:
    rows = [_ROWS[place] for place in sorted(rng.sample(range(len(_ROWS)), k=count))]
    drawn = [(name, row[name]) for row in rows for name in [rng.choice(sorted(row))]]
    return [{"rule": name, "values": draw(rng)} for name, draw in drawn]
