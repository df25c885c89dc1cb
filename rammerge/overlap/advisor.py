"""Which method is likely to win on agents, and which to lose, by the measured runs whose agents are most like them.

`advisor.json` holds what was measured of each run's agents, and how far each method was from the best. It also holds
the advisor's record: what it advised for runs that it was not fitted on. `python -m benchmarks.results` writes it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from importlib.resources import files
from typing import Any

# How many runs are asked at most.
NEAREST = 3
# Methods whose expected scores differ by less than this, in points, are reported as equally likely to win.
CLOSE = 1.0
# Beyond this distance no measured run is like the agents. Features are shares, or cosines.
FAR = 0.3
# A prediction that a method loses is right if the method is among this many at the end.
LAST = 3
_MANY_SHARED, _FEW_SHARED, _PARALLEL = 0.7, 0.3, 0.3


@dataclass(frozen=True)
class Features:
    """What the advisor looks at in agents. All values are shares, or lie in [-1, 1].

    Attributes:
        density: mean share of the weights that an agent changed.
        shared: share of the agents' changes that another agent made too.
        by_chance: the same if agents had chosen independently.
        cosine: mean cosine of each two task vectors.
        same_sign: share of the elements that two agents changed whose changes have the same sign.
    """

    density: float
    shared: float
    by_chance: float
    cosine: float
    same_sign: float

    def distance(self, other: Features) -> float:
        """Return the Euclidean distance."""
        ours, theirs = asdict(self).values(), asdict(other).values()
        return math.dist(list(ours), list(theirs))


@dataclass(frozen=True)
class Run:
    """A run that was measured: what its agents were like, and each method's score on test in percent, untuned."""

    name: str
    features: Features
    scores: Mapping[str, float]


@dataclass(frozen=True)
class Record:
    """How good the advice was for runs that it was not fitted on, in points of the average on test.

    Attributes:
        held_out: what was left out of the runs that it asked, one after the other.
        runs: how often it was asked.
        hits: how often the method that it expected to win was at most one point below the best.
        losers: how often the method that it expected to lose was among the last three.
        regret: mean distance of its method from the best.
        always: method -> mean distance of that method from the best, if it is always taken.
    """

    held_out: str
    runs: int
    hits: int
    losers: int
    regret: float
    always: Mapping[str, float]

    def sentence(self) -> str:
        """Return it in words."""
        always = sorted(self.always.items(), key=lambda each: each[::-1])
        others = ", ".join(f"{regret:.1f} for always {method}" for method, regret in always)
        return (
            f"record with every {self.held_out} left out in turn: {self.hits} hits and {self.runs - self.hits} misses "
            f"in {self.runs} runs, {self.regret:.1f} points below the best method on average ({others}); the "
            f"method that was likely to lose was among the last {LAST} in {self.losers}"
        )


@dataclass(frozen=True)
class Advice:
    """What is likely to win and to lose, and why.

    Attributes:
        best: the method that is expected to win.
        close: methods that are expected to come as close as makes no difference.
        worst: the method that is expected to lose.
        behind: by how many points `worst` is expected to be behind `best`.
        like: the runs that were asked, the most similar first.
        why: what about the agents speaks for it.
        far: whether none of the runs is like these agents.
    """

    best: str
    close: tuple[str, ...]
    worst: str
    behind: float
    like: tuple[str, ...]
    why: str
    far: bool

    def sentence(self) -> str:
        """Return it in words."""
        or_so = f" (or {', '.join(self.close)}, which are expected within {CLOSE:g} point)" if self.close else ""
        doubt = "; none of the measured runs is like these agents, so this is a guess" if self.far else ""
        return (
            f"likely to win: {self.best}{or_so}; likely to lose: {self.worst}, by {self.behind:.0f} points. {self.why} "
            f"This is what happened in the most similar runs: {', '.join(self.like)}{doubt}"
        )


def advise(features: Features, runs: Sequence[Run]) -> Advice:
    """Return the advice for agents: the mean of each method's distance from the best over the most similar runs.

    Raises:
        ValueError: there are no runs.
    """
    if not runs:
        raise ValueError("the advisor needs at least one measured run")
    ranked = sorted(runs, key=lambda run: (features.distance(run.features), run.name))
    asked = ranked[:NEAREST]
    known = [name for name in asked[0].scores if all(name in run.scores for run in asked)]
    expected = {
        name: math.fsum(max(run.scores.values()) - run.scores[name] for run in asked) / len(asked) for name in known
    }
    order = sorted(known, key=lambda name: (expected[name], name))
    best, worst = order[0], order[-1]
    return Advice(
        best=best,
        close=tuple(name for name in order[1:] if expected[name] - expected[best] < CLOSE)[:NEAREST],
        worst=worst,
        behind=expected[worst] - expected[best],
        like=tuple(run.name for run in asked),
        why=_why(features),
        far=features.distance(asked[0].features) > FAR,
    )


def advice_of(features: Features | None) -> Advice | None:
    """Return the advice for agents from the measured runs; None if too little is known of the agents."""
    runs = measured_runs()
    return advise(features, runs) if features and runs else None


def advice_for(features: Features | None) -> list[str]:
    """Return the advice for agents and the advisor's record as sentences; none if too little is known of the agents."""
    advice = advice_of(features)
    return [] if advice is None else [advice.sentence(), *(each.sentence() for each in records())]


def advice_json(features: Features | None) -> dict[str, Any] | None:
    """Return the same as plain JSON."""
    advice = advice_of(features)
    return None if advice is None else {**asdict(advice), "records": [asdict(each) for each in records()]}


def measured_runs() -> list[Run]:
    """Return the runs that the advisor knows."""
    return [Run(each["name"], Features(**each["features"]), each["scores"]) for each in _data()["runs"]]


def records() -> list[Record]:
    """Return how good the advice was."""
    return [Record(**each) for each in _data()["records"]]


@cache
def _data() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(files(__package__).joinpath("advisor.json").read_text("utf-8"))
    return content


def _why(features: Features) -> str:
    """Return what about the agents decides between averaging and adding."""
    shared = f"{features.shared:.0%} of the changes are shared ({features.by_chance:.0%} by chance)"
    if features.cosine > _PARALLEL:
        return f"The agents move alike (mean cosine {features.cosine:.2f}), so adding counts the common part twice."
    if features.shared > _MANY_SHARED:
        return (
            f"{shared} and point in unrelated directions (mean cosine {features.cosine:.2f}): averaging shrinks each "
            "agent's part, and a sum keeps it."
        )
    if features.shared < _FEW_SHARED:
        return f"Only {shared}, so methods that treat unique changes alike differ little."
    return (
        f"{shared}, at a mean cosine of {features.cosine:.2f}: RAM keeps the unique part and shrinks the shared one, "
        "and a sum keeps both."
    )
