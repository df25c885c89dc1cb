"""What a gate is, and its outcome for a variant that is to be promoted: one sentence, with its numbers."""

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from evaluation.judging.leaderboard import Leaderboard


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
