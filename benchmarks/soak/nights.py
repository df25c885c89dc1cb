"""What each night brings: what was changed in the recipe, and what goes wrong. Both follow from the seed alone."""

import random
from dataclasses import dataclass
from typing import Any, Literal, get_args

Fault = Literal[
    "none",
    "kill -9",
    "SIGTERM",
    "model killed",
    "disk full",
    "MLflow killed",
    "Prefect killed",
    "two at once",
    "prune meanwhile",
]
FAULTS: tuple[Fault, ...] = get_args(Fault)
_WEIGHTS = (5, 6, 2, 1, 3, 2, 2, 3, 1)

AGENTS = ("tool", "code")
# So few that content comes back, which must be registered once.
SEEDS = 4
SUITES = ("words", "letters")
_MERGES: tuple[Any, ...] = (
    "average",
    "ram",
    "ties",
    {"method": "ram_plus", "preset": "paper"},
    {"method": "task_arithmetic", "params": {"scale": 0.5}},
)
_MARGINS = (0.0, 0.2, 1.0)


@dataclass(frozen=True)
class Night:
    """One night of the schedule.

    Attributes:
        recipe: the keys of the recipe that change from night to night.
        fault: what goes wrong.
        moment: when, as a share of the time that a run takes.
        room: bytes that a full disk has left.
    """

    recipe: dict[str, Any]
    fault: Fault
    moment: float
    room: int

    @property
    def margin(self) -> float:
        """By how much a new champion may be worse than the one before."""
        return float(self.recipe["gates"][1]["margin"])


def night(seed: int, number: int, *, faults: tuple[Fault, ...] = FAULTS) -> Night:
    """Return what the night `number` brings; a fault that is none of `faults` does not happen."""
    chances = random.Random(f"{seed} {number}")
    recipe = {
        "agents": {agent: f"{agent}-{chances.randrange(SEEDS)}" for agent in AGENTS},
        "merges": chances.sample(_MERGES, chances.choice([1, 2, 2])),
        "evaluation": {"suites": [f"./{chances.choice(SUITES)}"], "batch_size": 8},
        "gates": [
            {"rule": "min_score", "value": 0.0},
            {"rule": "not_worse_than_champion", "margin": chances.choice(_MARGINS)},
        ],
        "store": {"pack": chances.random() < 0.3},
        "compute": {"timeout": "5m"},
    }
    (fault,) = chances.choices(FAULTS, _WEIGHTS)
    moment, room = chances.random(), chances.choice([0, 4096, 50_000, 200_000])
    return Night(recipe, fault if fault in faults else "none", moment, room)
