"""The parts of a recipe that say what to merge, and the variants that they make."""

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from rammerge.recipe.location import Location
from rammerge.recipe.search import Search
from rammerge.recipe.section import Name, Scalar, Section

# A step after a method: its name, or its name and its parameters.
WrittenStep = str | dict[str, dict[str, Scalar] | None]
_SAID_BY_SEARCH = {"method", "preset", "params", "sweep"}


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
        default={},
        description="Lists of values; each combination becomes one variant. `svc.alpha` is of the step `svc` in "
        "`then`.",
    )
    search: Search | None = Field(
        default=None,
        description="In place of `method`, `preset`, `params` and `sweep`: methods and ranges; the best two become "
        "variants. The other keys hold for all candidates.",
    )
    weights: dict[Name, float] = Field(default={}, description="Factors of agents' task vectors; the others have 1.")
    tensors: list[WrittenTensorRule] = Field(default=[], description="What is done with some tensors instead.")
    then: list[WrittenStep] = Field(
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
        if self.search is not None and (others := sorted(self.model_fields_set & _SAID_BY_SEARCH)):
            raise ValueError(f"a search itself says what to merge; remove '{others[0]}'")
        return self

    @model_validator(mode="after")
    def _sweep_makes_sense(self) -> "Merge":
        if both := sorted(self.params.keys() & self.sweep.keys()):
            raise ValueError(f"'{both[0]}' is both in params and in sweep; keep one")
        for parameter, values in self.sweep.items():
            if not values or len(set(map(repr, values))) != len(values):
                raise ValueError(f"sweep.{parameter} needs one or more different values")
        if unknown := unknown_steps(self.then, self.sweep):
            raise ValueError(f"sweep.{unknown[0]} is of a step that `then` does not have; add the step")
        return self

    @property
    def tensor_rules(self) -> list[dict[str, Any]]:
        """The rules for some tensors, as plain data."""
        return [rule.model_dump(exclude_defaults=True) for rule in self.tensors]

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


def unknown_steps(then: Sequence[WrittenStep], names: Collection[str]) -> list[str]:
    """Return the parameters of steps, written STEP.PARAMETER, whose step is not there."""
    steps = {_written(step)[0] for step in then}
    return [name for name in names if "." in name and name.partition(".")[0] not in steps]


def with_values(
    then: Sequence[WrittenStep], values: Mapping[str, Scalar]
) -> tuple[dict[str, Scalar], list[WrittenStep]]:
    """Return those of `values` that are the method's own parameters, and the steps with the others."""
    own = {name: value for name, value in values.items() if "." not in name}
    if len(own) == len(values):
        return own, list(then)
    steps: list[WrittenStep] = []
    for step, params in map(_written, then):
        given = {name.partition(".")[2]: value for name, value in values.items() if name.startswith(f"{step}.")}
        steps.append({step: {**params, **given}})
    return own, steps


def _written(step: WrittenStep) -> tuple[str, dict[str, Scalar]]:
    """Return a step's name and its parameters; no name for what is not a step, which is refused elsewhere."""
    if isinstance(step, str):
        return step, {}
    ((name, params),) = step.items() if len(step) == 1 else (("", None),)
    return name, params or {}


def variant_name(merge: Merge, swept: Mapping[str, Scalar]) -> str:
    """Return a variant's name: the recipe's, or the method with what the recipe sets; and what was swept."""
    stem = [merge.name] if merge.name else [merge.method, *([merge.preset] if merge.preset else [])]
    shown = swept if merge.name else {**merge.params, **swept, **merge.weights}
    steps = [] if merge.name else [part for step in map(_written, merge.then) for part in _shown(*step)]
    name = "-".join([*stem, *(f"{parameter}{value}" for parameter, value in shown.items()), *steps])
    return re.sub(r"[^A-Za-z0-9._-]", "_", name)


def _shown(step: str, params: Mapping[str, Scalar]) -> list[str]:
    """Return the name of a step and its parameters, as parts of a variant's name."""
    return [step, *(f"{parameter}{value}" for parameter, value in params.items())]
