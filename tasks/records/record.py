"""What a pipeline run came to, as MLflow is told."""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict

from rammerge.recipe import Recipe
from tasks.runtime.step import identity
from tasks.steps.evaluating import Compared, Decision, SuiteRef
from tasks.steps.merging import Merged, Method, OverlapResult
from tasks.steps.sources import Model


class Record(BaseModel):
    """A pipeline run that has been judged.

    Attributes:
        recipe: what was asked for.
        sources: the base, called `base`, and the agents.
        methods: by variant.
        variants: the merged models.
        suites: what the models were measured on.
        overlap: what each agent changed.
        leaderboard: what everyone scored.
        decision: what the gates said about the selected variant.
    """

    model_config = ConfigDict(frozen=True)

    recipe: Recipe
    sources: Mapping[str, Model]
    methods: Mapping[str, Method]
    variants: Mapping[str, Merged]
    suites: Sequence[SuiteRef]
    overlap: OverlapResult
    leaderboard: Compared
    decision: Decision

    @property
    def identity(self) -> dict[str, Any]:
        """The identity of each part."""
        return {name: identity(getattr(self, name)) for name in type(self).model_fields}

    @property
    def selected(self) -> Merged:
        """The selected variant."""
        return self.variants[self.decision.variant]

    @property
    def tags(self) -> dict[str, str]:
        """What everything that is written about this run is tagged with."""
        return {
            "rammerge.recipe": self.recipe.digest,
            **{f"rammerge.source.{name}": model.provenance for name, model in self.sources.items()},
        }
