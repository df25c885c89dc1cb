"""The gates that rammerge brings. Each judges a variant by its test results, in a sentence that ends with an estimate.

A rule that names several suites or models asks for all of them at once. Such a conjunction keeps the level of its parts
(an intersection-union test, Berger 1982, Technometrics 24:295), so nothing is adjusted for their number here.
"""

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Literal

from pydantic import Field

from evaluation.judging.gates import Claim, Gate, GateOutcome
from evaluation.judging.leaderboard import Leaderboard
from evaluation.statistics import Difference, Estimate

Evidence = Literal["interval", "point"]


class NotWorseThanBase(Gate):
    """On every suite the variant is at most `margin` below the base.

    With `evidence: interval` a test of non-inferiority: the lower limit of the paired difference's interval lies above
    -margin on every suite. With `evidence: point` the difference itself does.
    """

    rule: Literal["not_worse_than_base"] = "not_worse_than_base"
    margin: float = Field(default=0.02, ge=0, le=1)
    evidence: Evidence = "interval"

    def claims(self) -> Iterator[Claim]:
        """See Gate."""
        if self.evidence == "interval":
            yield Claim("difference", -self.margin, "each")

    def judge(self, leaderboard: Leaderboard, variant: str) -> GateOutcome:
        """See Gate."""
        base = leaderboard.names("base")[0]
        suites = leaderboard.compare(variant, base).suites
        floors = {suite: _floor(difference, self.evidence) for suite, difference in suites.items()}
        worst = min(floors, key=lambda suite: floors[suite])
        passed = floors[worst] > -self.margin
        claim = (
            f"is not worse than {base} by {self.margin:g} or more on any suite"
            if passed
            else f"is not shown to be within {self.margin:g} of {base} on {worst}"
        )
        return GateOutcome(
            rule=self.rule,
            passed=passed,
            sentence=f"{variant} {claim}: the least is {_shown(suites[worst], leaderboard, f'on {worst}')}.",
            numbers={f"{suite}.difference": difference.value for suite, difference in suites.items()}
            | {f"{suite}.low": difference.low for suite, difference in suites.items()},
        )


class BeatsEveryAgent(Gate):
    """The variant's average over the suites is above every single agent's.

    With `evidence: interval` the interval of every difference lies above 0, with `evidence: point` the difference.
    """

    rule: Literal["beats_every_agent"] = "beats_every_agent"
    evidence: Evidence = "interval"

    def claims(self) -> Iterator[Claim]:
        """See Gate."""
        if self.evidence == "interval":
            yield Claim("difference", 0.0)

    def judge(self, leaderboard: Leaderboard, variant: str) -> GateOutcome:
        """See Gate."""
        agents = {agent: leaderboard.compare(variant, agent).average for agent in leaderboard.names("agent")}
        nearest = min(agents, key=lambda agent: _floor(agents[agent], self.evidence))
        passed = _floor(agents[nearest], self.evidence) > 0
        claim = "beats every agent" if passed else f"is not shown to beat the agent {nearest}"
        return GateOutcome(
            rule=self.rule,
            passed=passed,
            sentence=f"{variant} {claim} on average: the least is "
            f"{_shown(agents[nearest], leaderboard, f'above {nearest}')}.",
            numbers={f"{agent}.difference": difference.value for agent, difference in agents.items()}
            | {f"{agent}.low": difference.low for agent, difference in agents.items()},
        )


class BetterThan(Gate):
    """The variant's average over the suites is above that of `model`; for `evidence` see BeatsEveryAgent."""

    rule: Literal["better_than"] = "better_than"
    model: str
    evidence: Evidence = "interval"

    def names(self) -> Iterator[tuple[Literal["model", "suite"], str]]:
        """See Gate."""
        yield "model", self.model

    def claims(self) -> Iterator[Claim]:
        """See Gate."""
        if self.evidence == "interval":
            yield Claim("difference", 0.0)

    def judge(self, leaderboard: Leaderboard, variant: str) -> GateOutcome:
        """See Gate."""
        difference = leaderboard.compare(variant, self.model).average
        passed = _floor(difference, self.evidence) > 0
        claim = "is better than" if passed else "is not shown to be better than"
        return GateOutcome(
            rule=self.rule,
            passed=passed,
            sentence=f"{variant} {claim} {self.model} on average: the difference is {_shown(difference, leaderboard)}.",
            numbers={"difference": difference.value, "low": difference.low, "p_value": difference.p_value},
        )


class NotWorseThanChampion(Gate):
    """The variant's average over the suites is less than `margin` below that of the release that serves now.

    For `evidence` see NotWorseThanBase. It passes if nothing serves yet, and if the variant itself does.
    """

    rule: Literal["not_worse_than_champion"] = "not_worse_than_champion"
    margin: float = Field(default=0.02, ge=0, le=1)
    evidence: Evidence = "interval"

    def claims(self) -> Iterator[Claim]:
        """See Gate."""
        if self.evidence == "interval":
            yield Claim("difference", -self.margin)

    def judge(self, leaderboard: Leaderboard, variant: str) -> GateOutcome:
        """See Gate."""
        return _against_champion(self.rule, leaderboard, variant, -self.margin, self.evidence)


class BetterThanChampion(Gate):
    """The variant's average over the suites is above that of the release that serves now; evidence as above.

    It passes if nothing serves yet, and if the variant itself does.
    """

    rule: Literal["better_than_champion"] = "better_than_champion"
    evidence: Evidence = "interval"

    def claims(self) -> Iterator[Claim]:
        """See Gate."""
        if self.evidence == "interval":
            yield Claim("difference", 0.0)

    def judge(self, leaderboard: Leaderboard, variant: str) -> GateOutcome:
        """See Gate."""
        return _against_champion(self.rule, leaderboard, variant, 0.0, self.evidence)


class MinScore(Gate):
    """The variant scores at least `value` on `suite` (without `suite`: on average); evidence as in NotWorseThanBase."""

    rule: Literal["min_score"] = "min_score"
    value: float = Field(ge=0, le=1)
    suite: str | None = None
    evidence: Evidence = "point"

    def names(self) -> Iterator[tuple[Literal["model", "suite"], str]]:
        """See Gate."""
        if self.suite is not None:
            yield "suite", self.suite

    def claims(self) -> Iterator[Claim]:
        """See Gate."""
        if self.evidence == "interval":
            yield Claim("score", self.value, self.suite or "average")

    def judge(self, leaderboard: Leaderboard, variant: str) -> GateOutcome:
        """See Gate."""
        row = leaderboard.row(variant)
        estimate = row.average["test"] if self.suite is None else row.suites["test"][self.suite]
        passed = _floor(estimate, self.evidence) >= self.value
        claim = "reaches" if passed else "is not shown to reach"
        where = "on average" if self.suite is None else f"on {self.suite}"
        return GateOutcome(
            rule=self.rule,
            passed=passed,
            sentence=f"{variant} {claim} {self.value:g} {where}: it scores {_shown(estimate, leaderboard)}.",
            numbers={"score": estimate.value, "low": estimate.low},
        )


_RULES: tuple[type[Gate], ...] = (
    NotWorseThanBase,
    BeatsEveryAgent,
    MinScore,
    BetterThan,
    NotWorseThanChampion,
    BetterThanChampion,
)
RULES: Mapping[str, type[Gate]] = MappingProxyType({rule.model_fields["rule"].default: rule for rule in _RULES})
# The rules that look at the release that serves.
CHAMPION_RULES = frozenset({"not_worse_than_champion", "better_than_champion"})


def _against_champion(
    rule: str, leaderboard: Leaderboard, variant: str, least: float, evidence: Evidence
) -> GateOutcome:
    """Say whether the variant's average minus the champion's is above `least`."""
    champion = leaderboard.champion
    if champion is None or champion.row == variant:
        sentence = f"{variant} has no other champion to be compared with."
        return GateOutcome(rule=rule, passed=True, sentence=sentence, numbers={})
    if champion.row is None:
        sentence = f"{variant} cannot be compared with the champion, {champion.name}: {champion.problem}."
        return GateOutcome(rule=rule, passed=False, sentence=sentence, numbers={})
    difference = leaderboard.compare(variant, champion.row).average
    passed = _floor(difference, evidence) > least
    claim = f"not worse than the champion by {-least:g} or more" if least else "better than the champion"
    verb = "is" if passed else "is not shown to be"
    return GateOutcome(
        rule=rule,
        passed=passed,
        sentence=f"{variant} {verb} {claim}, {champion.name}, on average: the difference is "
        f"{_shown(difference, leaderboard)}.",
        numbers={"difference": difference.value, "low": difference.low, "p_value": difference.p_value},
    )


def _floor(estimate: Estimate, evidence: Evidence) -> float:
    return estimate.low if evidence == "interval" else estimate.value


def _shown(estimate: Estimate, leaderboard: Leaderboard, where: str = "") -> str:
    sign = "+" if isinstance(estimate, Difference) else ""
    number = f"{estimate.value:{sign}.3f} {where}".rstrip()
    return (
        f"{number} ({100 * leaderboard.confidence:g} % interval {estimate.low:{sign}.3f} to {estimate.high:{sign}.3f}, "
        f"{estimate.n} test items, {leaderboard.dtype})"
    )
