"""The parts of a recipe that say what to merge, and the variants that they make."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from rammerge.recipe.location import Location
from rammerge.recipe.search import Search
from rammerge.recipe.section import Name, Scalar, Section


class WrittenTensorRule(Section):
    """Copy the tensors that match from one model, or merge them with other parameters. The first match holds."""

    match: str = Field(min_length=1, description="Pattern of tensor names, as of files: `*`, `?`, `[0-9]`.")
    use: str | None = Field(default=None, description="`base` or an agent's name: the model to copy them from.")
    params: dict[str, Scalar] = Field(default={}, description="Parameters of the method for them.")

    @model_validator(mode="after")
    def _says_one_thing(self) -> "WrittenTensorRule":
        if (self.use is None) == (not self.params):
            raise ValueError("needs either `use` or `params`")
        return self


class Merge(Section):
    """One variant, or several with `sweep` or `search`. A plain string is a method with its default parameters."""

    method: str = Field(default="", description="A name from `rammerge methods`; required unless there is a `search`.")
    preset: str | None = Field(default=None, description="A named set of parameters of the method.")
    params: dict[str, Scalar] = Field(default={}, description="Parameters that override the preset.")
    sweep: dict[str, list[Scalar]] = Field(
        default={}, description="Lists of values; each combination becomes one variant."
    )
    search: Search | None = Field(
        default=None, description="In place of all but `name`: methods and ranges; the best two become variants."
    )
    weights: dict[Name, float] = Field(default={}, description="Factors of agents' task vectors; the others have 1.")
    tensors: list[WrittenTensorRule] = Field(default=[], description="What is done with some tensors instead.")
    then: list[str | dict[str, dict[str, Scalar] | None]] = Field(
        default=[], description="Steps after the method, such as `svc` or `{svc: {alpha: 0.1}}`."
    )
    prompts: str | None = Field(
        default=None,
        min_length=1,
        description="Of a method that needs data: a file (relative to the recipe file) with one prompt on each line, "
        "as text or, in `.jsonl`, as `prompt` of an object.",
    )
    name: Name | None = Field(
        default=None, description="The variant's name; with `sweep` or `search`, the start of each variant's name."
    )

    @model_validator(mode="after")
    def _says_what_to_merge(self) -> "Merge":
        if self.search is None and not self.method:
            raise ValueError("the key 'method' is missing; add it, or `search`")
        if self.search is not None and (others := sorted(self.model_fields_set - {"search", "name"})):
            raise ValueError(f"a search itself says what to merge; remove '{others[0]}'")
        return self

    @model_validator(mode="after")
    def _sweep_makes_sense(self) -> "Merge":
        if both := sorted(self.params.keys() & self.sweep.keys()):
            raise ValueError(f"'{both[0]}' is both in params and in sweep; keep one")
        for parameter, values in self.sweep.items():
            if not values or len(set(map(repr, values))) != len(values):
                raise ValueError(f"sweep.{parameter} needs one or more different values")
        return self

    @property
    def found(self) -> tuple[str, str]:
        """The names of the variants that a search finds: the winner, and the runner-up."""
        stem = self.name or "search"
        return f"{stem}-best", f"{stem}-second"


class Variant(BaseModel):
    """One method with one set of parameters. The name is unique within the recipe."""

    model_config = ConfigDict(frozen=True)

    name: str
    method: str
    preset: str | None
    params: dict[str, Scalar]
    weights: dict[str, float] = {}
    tensors: list[dict[str, Any]] = []
    then: list[str | dict[str, Any]] = []
    prompts: Path | None = None
    location: Location  # the part of the recipe that makes it


def variant_name(merge: Merge, swept: Mapping[str, Scalar]) -> str:
    """Return a variant's name: the recipe's, or the method with what the recipe sets; and what was swept."""
    stem = [merge.name] if merge.name else [merge.method, *([merge.preset] if merge.preset else [])]
    shown = swept if merge.name else {**merge.params, **swept, **merge.weights}
    steps = [] if merge.name else [part for step in merge.then for part in _shown(step)]
    name = "-".join([*stem, *(f"{parameter}{value}" for parameter, value in shown.items()), *steps])
    return re.sub(r"[^A-Za-z0-9._-]", "_", name)


def _shown(step: str | Mapping[str, Mapping[str, Scalar] | None]) -> list[str]:
    """Return the name of a step and its parameters, as parts of a variant's name."""
    given = {step: None} if isinstance(step, str) else step
    return [part for name, params in given.items() for part in (name, *(f"{k}{v}" for k, v in (params or {}).items()))]
