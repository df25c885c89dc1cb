"""What a report says, as plain values: everything on the page comes from here."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import TypeAdapter

from evaluation.judging.gates import GateDecision
from evaluation.judging.leaderboard import Leaderboard
from evaluation.report.page.atlas import Atlas
from evaluation.report.page.flips import Flip
from evaluation.search.history import History
from rammerge.system.tables import Table


@dataclass(frozen=True)
class AgentChange:
    """What one agent changed.

    Attributes:
        name: of the agent.
        density: share of the model's elements that it changed.
        unique_share: share of its changes at which no other agent changed anything.
        cosines: of its task vector to each agent's, None where one of them is zero; empty if they were not measured.
    """

    name: str
    density: float
    unique_share: float
    cosines: Mapping[str, float | None] = field(default_factory=dict)


@dataclass(frozen=True)
class VariantFacts:
    """How one variant was made.

    Attributes:
        name: of the variant.
        method: the method with its preset and parameters, in words.
        factors: lambda by agent, where the method has one for the whole model.
        kept_share: share of the merged changes that the output dtype kept.
        survived: by agent, share of its changes that the merged model differs from the base in.
        warnings: what the user should know.
    """

    name: str
    method: str
    factors: Mapping[str, float]
    kept_share: float | None
    survived: Mapping[str, float]
    warnings: Sequence[str] = ()


@dataclass(frozen=True)
class Cost:
    """What one model took, when the work was done.

    Attributes:
        name: of the model.
        seconds: by kind of work.
        tokens: read and written in the evaluation, if they were counted.
        peak_memory: of the evaluation's process or GPU in bytes, if it was measured.
    """

    name: str
    seconds: Mapping[str, float]
    tokens: int | None = None
    peak_memory: int | None = None


@dataclass(frozen=True)
class Page:
    """The content of a report.

    Attributes:
        title: the recipe's name.
        board: scores, intervals and comparisons.
        decision: of the gates on the selected variant; None on a page that compares two runs.
        agents: what each agent changed, in the recipe's order.
        figures: what else is known of their changes, as `rammerge inspect` prints it.
        atlas: where they changed it, if it was counted by tensor.
        variants: how each variant was made, in the leaderboard's order.
        flips: items on which the selected variant and another model differ.
        costs: what each model took.
        shared_seconds: by kind of work that is about all models together.
        facts: provenance: name -> digest, version or setting.
        recipe: the recipe's text.
        warnings: of the preflight and of the overlap.
        search: what became of the candidates, if variants were searched for.
        domains: what each suite measures, in a word.
        samples: model -> suite -> file with what it answered on test, on the machine of the run.
        advice: which method is likely to win on such agents, and what this advice was worth, as sentences.
    """

    title: str
    board: Leaderboard
    decision: GateDecision | None
    agents: Sequence[AgentChange]
    figures: Sequence[Table]
    atlas: Atlas | None
    variants: Sequence[VariantFacts]
    flips: Sequence[Flip]
    costs: Sequence[Cost]
    shared_seconds: Mapping[str, float]
    facts: Mapping[str, str]
    recipe: str
    warnings: Sequence[str] = field(default_factory=tuple)
    search: History | None = None
    domains: Mapping[str, str] = field(default_factory=dict)
    samples: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    advice: Sequence[str] = field(default_factory=tuple)

    def to_json(self) -> dict[str, Any]:
        """Return everything but the leaderboard, which is written elsewhere, as a JSON object for `from_json`."""
        found: dict[str, Any] = TypeAdapter(Page).dump_python(self, mode="json", exclude={"board"})
        return found

    @classmethod
    def from_json(cls, content: Mapping[str, Any], board: Leaderboard) -> "Page":
        """Return the page that `to_json` wrote, with its leaderboard."""
        return TypeAdapter(Page).validate_python({**content, "board": board})
