"""Rules that a variant must pass to be promoted, judged on its test results; each outcome is one sentence.

A rule that names several suites or models asks for all of them at once. Such a conjunction keeps the level of its parts
(an intersection-union test, Berger 1982, Technometrics 24:295), so nothing is adjusted for their number here.
"""

from abc import abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from evaluation.judging.comparable import IncomparableError
from evaluation.judging.leaderboard import Leaderboard
from evaluation.statistics import Difference, Estimate
from rammerge.errors import InputError, closest
from rammerge.system.plugins import entry_points, is_reference, load_object
from rammerge.system.reached import code_digest
from rammerge.system.schema import check

Evidence = Literal["interval", "point"]


class GateOutcome(BaseModel):
    """What one rule said: passed or not, why, and the numbers it looked at (fractions, not percent)."""

    model_config = ConfigDict(frozen=True)

    rule: str
    passed: bool
    sentence: str
    numbers: dict[str, float]


class GateDecision(BaseModel):
    """The outcomes of all rules for one variant; it passes if every rule does (and if there is none)."""

    model_config = ConfigDict(frozen=True)

    variant: str
    passed: bool
    outcomes: tuple[GateOutcome, ...]

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object from which `from_json` makes the same decision."""
        return self.model_dump(mode="json")

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "GateDecision":
        """Return the decision that `to_json` wrote."""
        return cls.model_validate(content)


@dataclass(frozen=True)
class Claim:
    """What an interval has to show for a rule to pass: that a difference or a score lies above a limit.

    Attributes:
        of: `difference` from a model, or the `score` itself.
        limit: 0 for better, -margin for not worse, or the least score.
        suites: `average` over the suites, `each` of them, or the name of one.
    """

    of: Literal["difference", "score"]
    limit: float
    suites: str = "average"


class Gate(BaseModel):
    """A rule with its parameters."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rule: str

    def names(self) -> Iterator[tuple[Literal["model", "suite"], str]]:
        """Yield what the parameters refer to by name, so that it can be checked before any work."""
        yield from ()

    def claims(self) -> Iterator[Claim]:
        """Yield what intervals have to show, so that a rule that these items cannot answer is found before any work."""
        yield from ()

    @abstractmethod
    def judge(self, leaderboard: Leaderboard, variant: str) -> GateOutcome:
        """Say whether `variant` passes, on the test split."""


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


def parse_gate(
    content: Mapping[str, Any], *, where: str = "gate", trusted: Collection[str] = (), directory: Path | None = None
) -> Gate:
    """Return the gate that a recipe writes as {rule: name, parameter: value, ...}.

    Args:
        content: what the recipe writes.
        where: what messages call it.
        trusted: modules whose code may run, for a rule named `module:name`.
        directory: where such a module may lie besides the import path.

    Raises InputError naming `where` and the nearest valid name for an unknown rule or parameter, or a bad value.
    """
    name = str(content.get("rule"))
    return check(_rule(name, where, trusted, directory), content, f"{where} ({name})")


def own_code(gates: Sequence[Gate]) -> dict[str, str]:
    """Return the digest of the code of each rule that is not rammerge's own, by the rule's name."""
    return {gate.rule: code_digest(type(gate)) for gate in gates if type(gate) not in RULES.values()}


def _rule(name: str, where: str, trusted: Collection[str], directory: Path | None) -> type[Gate]:
    """Return the rule of that name: one of rammerge's, of a trusted module, or of an installed package."""
    if name in RULES:
        return RULES[name]
    rule = (
        load_object(name, what="gate", trusted=trusted, directory=directory)
        if is_reference(name)
        else _offered(name, where)
    )
    if not (isinstance(rule, type) and issubclass(rule, Gate)):
        raise InputError(f"{where}: the rule '{name}' is not a subclass of evaluation.judging.gates.Gate; correct it")
    return rule


def _offered(name: str, where: str) -> Any:
    """Return what an installed package offers under the entry point `name` of the group `rammerge.gates`."""
    offered = entry_points("rammerge.gates", what="gate")
    if name not in offered:
        rules = [*RULES, *offered]
        raise InputError(f"{where}: unknown rule '{name}'{closest(name, rules)}; the rules are {', '.join(rules)}")
    return offered[name]()


def check_names(gates: Sequence[Gate], *, models: Sequence[str], suites: Sequence[str]) -> None:
    """Raise InputError if a gate refers to a model or suite that is not in the recipe."""
    known = {"model": models, "suite": suites}
    for gate in gates:
        for kind, name in gate.names():
            if name not in known[kind]:
                raise InputError(
                    f"the gate {gate.rule} names the unknown {kind} '{name}'{closest(name, known[kind])}; there are "
                    f"{', '.join(known[kind])}"
                )


def decide(leaderboard: Leaderboard, variant: str, gates: Sequence[Gate]) -> GateDecision:
    """Judge `variant` by every gate on the test split.

    Raises InputError if `variant`, or a model or suite that a gate names, is not on the leaderboard.
    """
    leaderboard.row(variant)
    check_names(gates, models=[row.name for row in leaderboard.rows], suites=leaderboard.suites)
    outcomes = tuple(_judged(gate, leaderboard, variant) for gate in gates)
    return GateDecision(variant=variant, passed=all(outcome.passed for outcome in outcomes), outcomes=outcomes)


def _judged(gate: Gate, leaderboard: Leaderboard, variant: str) -> GateOutcome:
    try:
        return gate.judge(leaderboard, variant)
    except IncomparableError as error:
        return GateOutcome(rule=gate.rule, passed=False, sentence=f"{variant} is not judged: {error}.", numbers={})


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
