"""The typed recipe.

Other modules know which methods, suites and gate rules exist. They report unknown ones with `Recipe.error`, so that
every complaint about a recipe names its file, line and key.
"""

import hashlib
import itertools
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PrivateAttr, field_validator

from rammerge.errors import InputError
from rammerge.recipe.compute import Compute
from rammerge.recipe.evaluation import Evaluation, WrittenGate, read_evaluation
from rammerge.recipe.location import Location, error_at
from rammerge.recipe.merges import Merge, Variant, variant_name, with_values
from rammerge.recipe.registry import Notify, Registry
from rammerge.recipe.section import RESERVED, Dtype, Name, Section, Size, short_form
from rammerge.recipe.sources import Agent, Source, member_names
from rammerge.recipe.yardsticks import ROUTED, Yardstick
from rammerge.system.paths import exists, expanded

MAX_VARIANTS = 256

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+(@[\w./-]+)?")


class Output(Section):
    """How merged models are written."""

    dtype: Dtype = Field(
        default="float32", description="A shorter dtype can erase what RAM+ adds; the run reports how much is lost."
    )
    rounding: Literal["nearest", "stochastic"] = Field(
        default="nearest", description="How values are rounded to the dtype."
    )
    seed: int = Field(
        default=0, ge=0, lt=1 << 63, description="Seed of stochastic rounding and of random methods (DARE)."
    )
    shard_size: Size = Field(default="5GB", description="Largest size of one weight file.")
    tokenizer: str = Field(
        default="base", description="`base` or an agent's name: the model whose tokenizer and chat template are copied."
    )
    resize: Literal["refuse", "common"] = Field(
        default="refuse", description="`common`: agents with appended vocabulary rows are merged on the base's rows."
    )


class Store(Section):
    """How the store keeps models between runs; no byte of a result depends on it."""

    pack: bool = Field(
        default=False,
        description="Keep the variants that were not selected as patches of the base, and use agents that are patches "
        "as they are. Registered models stay whole.",
    )
    shared: str | None = Field(
        default=None,
        min_length=1,
        exclude=True,  # what a run finds does not depend on where others look for it
        description="What other machines made is taken from there, and what this run makes is put there.",
    )
    cache: Size | None = Field(
        default=None,
        exclude=True,
        description="What the store here may take; of what the shared store has, the copies that were used longest ago "
        "go first.",
    )


class Recipe(Section):
    """A whole recipe, as `rammerge.recipe.load` returns it."""

    name: Name = Field(description="Name of the run, and of the registered model unless `registry.model` is given.")
    base: Annotated[Source, short_form("source", Source)] = Field(
        description="The model that every agent was trained from."
    )
    agents: dict[Name, Annotated[Agent, short_form("source", Agent)]] = Field(
        min_length=1, description="Name to checkpoint, or to a group of them."
    )
    merges: list[Annotated[Merge, short_form("method", Merge)]] = Field(
        min_length=1, description="The variants to make."
    )
    yardsticks: dict[Name, Annotated[Yardstick, short_form("source", Yardstick)]] = Field(
        default={}, description="Models to measure the merges against; they are never merged."
    )
    output: Output = Output()
    compute: Compute = Compute()
    evaluation: Annotated[
        Evaluation, BeforeValidator(read_evaluation, json_schema_input_type=Evaluation | Literal["none"])
    ] = Field(description="How models are evaluated, or `none`.")
    gates: list[Annotated[WrittenGate, short_form("rule", WrittenGate)]] = Field(
        default=[], description="All must pass before promotion."
    )
    registry: Registry = Registry()
    notify: list[Notify] = Field(default=[], description="Who hears of what became of a run.")
    store: Store = Store()
    trust: list[str] = Field(
        default=[],
        description="Modules whose code may run, for what is named `module:name`; beside the recipe or installed.",
    )

    @field_validator("trust")
    @classmethod
    def _are_modules(cls, trust: list[str]) -> list[str]:
        for name in trust:
            if not all(part.isidentifier() for part in name.split(".")):
                raise ValueError(
                    f"'{name}' is not the name of a module; code runs only from this machine: fetch a version that "
                    "you have read, put it beside the recipe, and give its name, like own_rules"
                )
        return trust

    _path: Path = PrivateAttr(default=Path())
    _lines: Mapping[Location, int] = PrivateAttr(default_factory=lambda: dict[Location, int]({(): 1}))

    @property
    def directory(self) -> Path:
        """The absolute directory of the file, from which paths and trusted modules are found."""
        return self._path.absolute().parent

    @property
    def path(self) -> Path:
        """The file that the recipe was read from."""
        return self._path

    @property
    def model_name(self) -> str:
        """The name of the registered model."""
        return self.registry.model or self.name

    @property
    def evaluates(self) -> bool:
        """Whether the models are evaluated: `evaluation` is not `none`."""
        return bool(self.evaluation.suites)

    @property
    def promotes(self) -> bool:
        """Whether a variant becomes the champion if the gates pass; without an evaluation nothing is promoted."""
        return self.registry.promote and self.evaluates

    @property
    def digest(self) -> str:
        """SHA-256 of what the recipe says. Comments, layout, the order of keys and written defaults do not count.

        Nor does what changes neither a model nor a score: limits of time, who is asked, and who is told.
        """
        unused: Any = {"store": True, "notify": True, "compute": {"timeout", "workers"}, "registry": True}
        said = self.model_dump(mode="json", exclude=unused, exclude_defaults=True)
        said["registry"] = self.registry.model_dump(mode="json", include={"model", "promote"}, exclude_defaults=True)
        return _digest({key: value for key, value in said.items() if value != {}})

    def is_of_digest(self, digest: str) -> bool:
        """Tell whether a run with that digest ran this recipe; in older runs it covers the defaults of all keys."""
        return digest in (self.digest, self._digest_with_defaults)

    @property
    def _digest_with_defaults(self) -> str:
        unused = {key for key in ("trust", "yardsticks") if not getattr(self, key)}
        said = self.model_dump(mode="json", exclude={"store", "notify", *unused})
        for key in ("timeout", "workers"):
            said["compute"].pop(key)
        said["registry"] = self.registry.model_dump(mode="json", include={"model", "promote"})
        if not self.evaluation.trust_remote_code:
            said["evaluation"].pop("trust_remote_code", None)
        return _digest(said)

    @property
    def content(self) -> dict[str, Any]:
        """What the recipe says of models, scores and releases, as JSON without keys that have their defaults.

        So a key that a later release adds changes nothing for recipes that do not use it.
        """
        unused: Any = {"store": True, "compute": True, "registry": {"approval", "approval_timeout", "licences"}}
        said = self.model_dump(mode="json", exclude=unused, exclude_defaults=True)
        return {key: value for key, value in said.items() if value != {}}

    @property
    def shared_store(self) -> str | None:
        """The shared store that the recipe names: an absolute directory, or an address."""
        shared = self.store.shared
        return shared if shared is None or "://" in shared else self._beside(shared)

    def place(self, path: Path, lines: Mapping[Location, int]) -> "Recipe":
        """Return a copy of the recipe that knows its file and the line of each part."""
        placed = self.model_copy()
        placed._path, placed._lines = path, lines
        return placed

    def error(self, location: Location, message: str) -> InputError:
        """Return an InputError with `message` about the part of the file at `location`."""
        return error_at(self._path, self._lines, location, message)

    def resolve(self, source: Source) -> str:
        """Return the absolute path of a local `source`, or the hub id as written.

        `org/name` is a directory beside the recipe if there is one, and a model on the hub otherwise.
        """
        beside = self._beside(source.source)
        return source.source if _HUB_ID.fullmatch(source.source) and not exists(Path(beside)) else beside

    @property
    def groups(self) -> dict[str, list[str]]:
        """The names of the checkpoints of each agent that is a group."""
        groups = {name: agent.group for name, agent in self.agents.items() if agent.group}
        return {name: member_names(name, len(group)) for name, group in groups.items()}

    def members(self) -> dict[str, tuple[Location, Source]]:
        """Return the checkpoints of all agents by name, with their places in the file."""
        found: dict[str, tuple[Location, Source]] = {}
        for name, agent in self.agents.items():
            for index, (member, source) in enumerate(zip(self.groups.get(name, [name]), agent.sources, strict=True)):
                place: Location = ("agents", name, "group", index) if agent.group else ("agents", name)
                if member in found or (member in self.agents and agent.group):
                    raise self.error(place, f"its name '{member}' is another agent's; rename one of them")
                found[member] = place, source
        return found

    @property
    def routed(self) -> Sequence[str]:
        """The names of the rows that stand for all agents together, if the leaderboard shows them."""
        return ROUTED if self.evaluation.router else ()

    @property
    def beside(self) -> list[str]:
        """The names on the leaderboard of what is never merged and never promoted."""
        return [*self.yardsticks, *self.routed]

    @property
    def searches(self) -> dict[Location, Merge]:
        """The parts of the file that search, by their places; there is at most one."""
        return {("merges", index): merge for index, merge in enumerate(self.merges) if merge.search}

    def variants(self) -> list[Variant]:
        """Return the variants in the order of the file, with sweeps expanded; InputError when two share a name.

        What a search finds is not among them; its names are taken.
        """
        variants: dict[str, Variant] = {}
        taken = {*self.agents, *self.members(), *self.beside, *RESERVED}
        for location, merge in self.searches.items():
            if both := sorted(taken & set(merge.found)):
                raise self.error(location, f"the variant name '{both[0]}' is taken; add another `name:`")
            taken |= set(merge.found)
        for variant in self._expand():
            if variant.name in taken | variants.keys():
                raise self.error(variant.location, f"the variant name '{variant.name}' is taken; add another `name:`")
            if len(variants) == MAX_VARIANTS:
                raise self.error(variant.location, f"makes more than {MAX_VARIANTS} variants; narrow the sweep")
            variants[variant.name] = variant
        return list(variants.values())

    def place_of(self, variant: str) -> Location:
        """Return the part of the file that makes a variant."""
        return next(each.location for each in self.variants() if each.name == variant)

    def _expand(self) -> Iterator[Variant]:
        for index, merge in enumerate(self.merges):
            if merge.search:
                continue
            for values in itertools.product(*merge.sweep.values()):
                swept = dict(zip(merge.sweep, values, strict=True))
                own, steps = with_values(merge.then, swept)
                yield Variant(
                    name=variant_name(merge, swept),
                    method=merge.method,
                    preset=merge.preset,
                    params={**merge.params, **own},
                    weights=merge.weights,
                    tensors=merge.tensor_rules,
                    then=steps,
                    prompts=self.prompts_of(merge),
                    location=("merges", index),
                )

    def prompts_of(self, merge: Merge) -> Path | None:
        """Return the file of prompts that a part of `merges` names."""
        return None if merge.prompts is None else Path(self._beside(merge.prompts))

    def _beside(self, written: str) -> str:
        # normpath rather than resolve: a symbolic link is the user's name for a checkpoint, and reports keep it.
        return os.path.normpath(self.directory / expanded(written))


def schema() -> dict[str, Any]:
    """Return the recipe's JSON schema (draft 2020-12)."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Recipe.model_json_schema()}


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, allow_nan=False).encode()).hexdigest()
