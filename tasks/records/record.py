"""The record of a pipeline run for MLflow."""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from pydantic import BaseModel, ConfigDict

from rammerge.errors import InputError
from rammerge.recipe import Recipe, load
from tasks.records.log import TAG_RECIPE
from tasks.runtime.result import Result, identity
from tasks.steps.conditions import SuiteRef
from tasks.steps.evaluating import Scores
from tasks.steps.history import Searched
from tasks.steps.judging import Compared, Decision
from tasks.steps.merging import Merged
from tasks.steps.methods import MethodRef
from tasks.steps.overlap import OverlapResult
from tasks.steps.serving import Server
from tasks.steps.smoking import Smoked
from tasks.steps.sources import Model

NOT_EVALUATED = "Not evaluated: the recipe has `evaluation: none`."


class Judged(BaseModel):
    """What an evaluation came to.

    Attributes:
        scores: what each model scored.
        leaderboard: what everyone scored, compared.
        decision: what the gates said about the selected variant.
    """

    model_config = ConfigDict(frozen=True)

    scores: Mapping[str, Scores]
    leaderboard: Compared
    decision: Decision

    @property
    def identity(self) -> dict[str, Any]:
        """The identity of each part."""
        return {name: identity(getattr(self, name)) for name in type(self).model_fields}


class Record(BaseModel):
    """A finished pipeline run.

    Attributes:
        recipe: what was asked for.
        sources: the base, called `base`, and the agents.
        methods: by variant.
        variants: the merged models.
        smoked: what each variant's smoke test gave.
        suites: what the models were measured on.
        overlap: what each agent changed.
        judged: what the evaluation came to; None if the recipe has none.
        searched: what a search came to; None if the recipe has none.
        yardsticks: the models that merges are only measured against.
        started: when the run started, in seconds since 1970. It is no part of the identity.
    """

    model_config = ConfigDict(frozen=True)

    recipe: Recipe
    sources: Mapping[str, Model]
    methods: Mapping[str, MethodRef]
    variants: Mapping[str, Merged]
    smoked: Mapping[str, Smoked]
    suites: Sequence[SuiteRef]
    overlap: OverlapResult
    judged: Judged | None
    searched: Searched | None = None
    yardsticks: Mapping[str, Model | Server] = {}
    started: float

    @property
    def identity(self) -> dict[str, Any]:
        """The identity of each part, without those that have their defaults: a later release may have more parts."""
        fields = type(self).model_fields.items()
        parts = {name: getattr(self, name) for name, field in fields if getattr(self, name) != field.default}
        parts |= {"recipe": self.recipe.content}
        return {name: identity(part) for name, part in parts.items() if name != "started"}

    @property
    def variant(self) -> str:
        """The name of the selected variant: without an evaluation there is only one."""
        return self.judged.decision.variant if self.judged else next(iter(self.variants))

    @property
    def recipe_text(self) -> str:
        """The recipe's file, or what was run in full where the file says something else: a sweep, or a later edit."""
        with suppress(InputError):
            if load(self.recipe.path).digest == self.recipe.digest:
                return self.recipe.path.read_text("utf-8")
        return json.dumps(self.recipe.model_dump(mode="json"), indent=2) + "\n"  # YAML that quotes every text

    @property
    def selected(self) -> Merged:
        """The selected variant."""
        return self.variants[self.variant]

    @property
    def verdict(self) -> str:
        """What the gates said: `passed`, `refused` or, without an evaluation, `none`."""
        return "none" if self.judged is None else "passed" if self.judged.decision.passed else "refused"

    def seconds(self, model: str | None = None) -> dict[str, float]:
        """Return how long each step about `model` took when it was done, or each step about all of them."""
        results: dict[str, Result | None]
        if model is None:
            results = {"extract": self.overlap}
            if self.judged:
                results |= {"compare": self.judged.leaderboard, "gate": self.judged.decision}
        else:
            scored = "route" if model in self.recipe.routed else "evaluate"
            beside = self.yardsticks.get(model)
            results = {
                "fetch": beside if isinstance(beside, Model) else self.sources.get(model),
                "merge": self.variants.get(model),
                "smoke": self.smoked.get(model),
                scored: self.judged.scores.get(model) if self.judged else None,
            }
        return {step: made.seconds for step, made in results.items() if made and made.seconds is not None}

    @property
    def tags(self) -> dict[str, str]:
        """The tags of everything that is written about this run."""
        return {
            TAG_RECIPE: self.recipe.digest,
            **{f"rammerge.source.{name}": model.provenance for name, model in self.sources.items()},
        }
