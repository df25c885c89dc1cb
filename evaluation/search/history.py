"""What became of the candidates of a search: how many items each saw, what it scored on them, and who won."""

from collections.abc import Mapping, Sequence
from itertools import accumulate

from pydantic import BaseModel, ConfigDict

from evaluation.search.schedule import SHARES


class Trial(BaseModel):
    """One candidate.

    Attributes:
        number: of the trial in its study.
        method, params: what was tried; other parameters have the method's defaults.
        first: the score of each objective, and `average` and `worst`, on the items of the first look, from which the
            next candidates were proposed.
        suites: the mean of each suite on all items that it saw.
        items: how many these are.
        looks: how many looks it took part in.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    number: int
    method: str
    params: dict[str, bool | int | float | str | None]
    first: dict[str, float]
    suites: dict[str, float]
    items: int
    looks: int

    @property
    def average(self) -> float:
        """The mean of its suites, on the items that it saw."""
        return sum(self.suites.values()) / len(self.suites)

    @property
    def whole(self) -> bool:
        """Whether it saw every item. If not, its score is not final, and has no interval."""
        return self.looks == len(SHARES)

    @property
    def words(self) -> str:
        """The method and its parameters."""
        return " ".join([self.method, *(f"{name}={value}" for name, value in self.params.items())])


class History(BaseModel):
    """A finished search.

    Attributes:
        objectives: what was maximized, by the names in `Trial.first`.
        trials: in the order of their numbers.
        best, second: numbers of the winner and of the runner-up, if there are two.
        answers: how many answers to validation items all candidates gave together.
        full: how many it would have taken to ask every candidate every item.
        stopped: why there are fewer trials than asked for, as a sentence.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    objectives: list[str]
    trials: list[Trial]
    best: int
    second: int | None
    answers: int
    full: int
    stopped: str | None = None

    @property
    def ranked(self) -> list[Trial]:
        """The trials from the best to the first that was dropped."""

        def rank(trial: Trial) -> tuple[float, ...]:
            chosen = (trial.number != self.best, trial.number != self.second)
            return (*chosen, -trial.looks, -trial.average, trial.number)

        return sorted(self.trials, key=rank)

    @property
    def best_so_far(self) -> list[float]:
        """After each trial, the highest average on the items of the first look."""
        return list(accumulate((trial.first["average"] for trial in self.trials), max))

    @property
    def trade_offs(self) -> list[Trial]:
        """The trials that no other one dominates in average and worst suite, on the items of the first look.

        They come from the best average to the worst, and of equal ones there is only the first.
        """
        front: list[Trial] = []
        for trial in sorted(self.trials, key=lambda trial: (-trial.first["average"], -trial.first["worst"])):
            if not front or trial.first["worst"] > front[-1].first["worst"]:
                front.append(trial)
        return front

    @property
    def sentence(self) -> str:
        """What it came to, in one line."""
        winner = next(trial for trial in self.trials if trial.number == self.best)
        return (
            f"{len(self.trials)} candidates gave {self.answers:,} answers to validation items, "
            f"{self.answers / self.full:.0%} of what all items of all candidates take; the best is {winner.words}"
        )


def order(scores: Mapping[int, Mapping[str, float]], objectives: Sequence[str]) -> list[int]:
    """Return the candidates by number from best to worst.

    Several objectives: a candidate that fewer others dominate comes first, where one dominates another if it is at
    least as good in every objective and better in one. Then, and for one objective, the better average comes first,
    then the better worst suite, then the earlier candidate. Rounding keeps the last bits of a sum from deciding what is
    a tie.

    Args:
        scores: for each candidate the objectives and, called `average` and `worst`, its average and worst suite.
        objectives: the names in `scores` to compare.
    """
    rounded = {number: {name: round(value, 12) for name, value in each.items()} for number, each in scores.items()}

    def dominated(number: int) -> int:
        ours = [rounded[number][name] for name in objectives]
        others = ([other[name] for name in objectives] for other in rounded.values())
        return sum(all(b >= a for a, b in zip(ours, their, strict=True)) and their != ours for their in others)

    def rank(number: int) -> tuple[float, ...]:
        behind = dominated(number) if len(objectives) > 1 else 0
        return (behind, -rounded[number]["average"], -rounded[number]["worst"], number)

    return sorted(scores, key=rank)
