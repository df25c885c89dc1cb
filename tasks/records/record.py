"""The record of a pipeline run for MLflow."""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict

from rammerge.recipe import Recipe
from tasks.runtime.step import Result, identity
from tasks.steps.evaluating import Compared, Decision, Scores, SuiteRef
from tasks.steps.merging import Merged, Method, OverlapResult, Smoked
from tasks.steps.sources import Model


class Record(BaseModel):
    """A finished and judged pipeline run.

    Attributes:
        recipe: what was asked for.
        sources: the base, called `base`, and the agents.
        methods: by variant.
        variants: the merged models.
        smoked: what each variant's smoke test gave.
        scores: what each source and variant scored.
        suites: what the models were measured on.
        overlap: what each agent changed.
        leaderboard: what everyone scored.
        decision: what the gates said about the selected variant.
        started: when the run started, in seconds since 1970. It is no part of the identity.
    """

    model_config = ConfigDict(frozen=True)

    recipe: Recipe
    sources: Mapping[str, Model]
    methods: Mapping[str, Method]
    variants: Mapping[str, Merged]
    smoked: Mapping[str, Smoked]
    scores: Mapping[str, Scores]
    suites: Sequence[SuiteRef]
    overlap: OverlapResult
    leaderboard: Compared
    decision: Decision
    started: float

    @property
    def identity(self) -> dict[str, Any]:
        """The identity of each part."""
        return {name: identity(getattr(self, name)) for name in type(self).model_fields if name != "started"}

    @property
    def selected(self) -> Merged:
        """The selected variant."""
        return self.variants[self.decision.variant]

    def seconds(self, model: str | None = None) -> dict[str, float]:
        """Return how long each step about `model` took when it was done, or each step about all of them."""
        results: dict[str, Result | None]
        if model is None:
            results = {"extract": self.overlap, "compare": self.leaderboard, "gate": self.decision}
        else:
            results = {
                "fetch": self.sources.get(model),
                "merge": self.variants.get(model),
                "smoke": self.smoked.get(model),
                "evaluate": self.scores.get(model),
            }
        return {step: made.seconds for step, made in results.items() if made and made.seconds is not None}

    @property
    def tags(self) -> dict[str, str]:
        """The tags of everything that is written about this run."""
        return {
            "rammerge.recipe": self.recipe.digest,
            **{f"rammerge.source.{name}": model.provenance for name, model in self.sources.items()},
        }
