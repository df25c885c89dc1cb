"""What a report says, as plain values: everything on the page comes from here."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from evaluation.judging.gates import GateDecision
from evaluation.judging.leaderboard import Leaderboard
from evaluation.report.page.atlas import Atlas
from evaluation.report.page.flips import Flip


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
class Page:
    """The content of a report.

    Attributes:
        title: the recipe's name.
        board: scores, intervals and comparisons.
        decision: of the gates on the selected variant.
        agents: what each agent changed, in the recipe's order.
        atlas: where they changed it, if it was counted by tensor.
        variants: how each variant was made, in the leaderboard's order.
        flips: items on which the selected variant and another model differ.
        seconds: time spent by kind of work, when it was done first.
        facts: provenance: name -> digest, version or setting.
        recipe: the recipe's text.
        warnings: of the preflight and of the overlap.
    """

    title: str
    board: Leaderboard
    decision: GateDecision
    agents: Sequence[AgentChange]
    atlas: Atlas | None
    variants: Sequence[VariantFacts]
    flips: Sequence[Flip]
    seconds: Mapping[str, float]
    facts: Mapping[str, str]
    recipe: str
    warnings: Sequence[str] = field(default_factory=tuple)
