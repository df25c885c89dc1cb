"""The plan of a run: a recipe in which every name has been looked up, and what follows from it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from evaluation.judging.deciding import parse_gate
from evaluation.judging.gates import Gate
from evaluation.judging.rules import CHAMPION_RULES
from evaluation.search.schedule import affordable, left
from rammerge.errors import InputError
from rammerge.recipe import Location, Recipe, Search
from tasks.search.space import Space
from tasks.search.study import TOGETHER
from tasks.steps.activations import PromptsRef
from tasks.steps.conditions import Conditions, SuiteRef
from tasks.steps.methods import MethodRef
from tasks.steps.serving import Server
from tasks.steps.sources import Origin


@dataclass(frozen=True)
class PlannedSearch:
    """A search whose methods and parameters have been looked up.

    Attributes:
        written: as in the recipe.
        names: of the variants that it finds, the winner and the runner-up.
        space: what may be proposed.
        location: its place in the recipe.
    """

    written: Search
    names: tuple[str, str]
    space: Space
    location: Location

    def steps(self, agents: int) -> int:
        """Return the number of steps: every look of every trial, those of its references, and of its two variants."""
        looks = sum(left(self.written.trials)) + agents * ("retention" in self.written.objectives)
        looks += self.prompts is not None
        return looks + len(["search", "record"]) + len(["merge", "smoke", "evaluate"]) * len(self.names)

    @property
    def prompts(self) -> PromptsRef | None:
        """The file of prompts that candidates need."""
        return PromptsRef.of(self.space.fixed.prompts) if self.space.fixed.prompts else None

    @property
    def warnings(self) -> list[str]:
        """What the ranges alone say against the search."""
        said: list[str] = []
        for method, domains in self.space.methods.items():
            varied = [name for name, domain in domains.items() if not domain.fixed]
            said += self.space.settle(method, {}).undone(varied)
        return said

    @property
    def may_share(self) -> bool:
        """Whether what it finds may be merged in one read of the models."""
        return not all(self.space.settle(method, {}).whole_matrices for method in self.space.methods)

    @property
    def models(self) -> int:
        """The most trial models that are on the disk at the same time."""
        return min(self.written.keep + TOGETHER, self.written.trials)

    def trials(self, sizes: Sequence[int]) -> int:
        """Return how many trials the budget pays for, given the items of each suite; 0 if not even two."""
        budget = self.written.items
        return self.written.trials if budget is None else affordable(budget, sizes, self.written.trials)


@dataclass(frozen=True)
class Plan:
    """A recipe in which every name has been looked up.

    Attributes:
        recipe: as written.
        base: where the base comes from.
        agents: where each agent comes from, and each member of a group, in the recipe's order.
        groups: agent -> members, for agents that are the mean of several checkpoints.
        variants: name -> method, in the recipe's order, sweeps expanded.
        suites: opened and checked.
        unfetched: sentences about suites whose items are not here and were not to be fetched; `suites` lacks them.
        gates: checked, as plain data, with the rule about the champion that a promoting recipe has unless it gives one.
        gate_code: digest of the code of each rule that an installed package offers.
        search: the search, if the recipe has one.
        yardsticks: where each checkpoint comes from that merges are only measured against.
        servers: the models on servers that they are measured against.
        batches: prompts at a time by suite, once they are chosen.
    """

    recipe: Recipe
    base: Origin
    agents: Mapping[str, Origin]
    groups: Mapping[str, list[str]]
    variants: Mapping[str, MethodRef]
    suites: list[SuiteRef]
    unfetched: Mapping[str, str]
    gates: list[dict[str, Any]]
    gate_code: dict[str, str]
    search: PlannedSearch | None = None
    yardsticks: Mapping[str, Origin] = field(default_factory=dict)
    servers: Mapping[str, Server] = field(default_factory=dict)
    batches: Mapping[str, int] = field(default_factory=dict)

    @cached_property
    def conditions(self) -> Conditions:
        """How models are asked; InputError if what runs them is not installed."""
        try:
            return Conditions.of(self.recipe, self.batches)
        except InputError as error:
            raise self.recipe.error(("evaluation", "backend"), str(error)) from None

    @property
    def prompts(self) -> dict[str, PromptsRef]:
        """The files of prompts that variants and candidates need, by their content."""
        files = [method.prompts for method in self.variants.values()]
        files += [self.search.prompts] if self.search else []
        return {prompts.sha256: prompts for prompts in files if prompts}

    def rules(self) -> list[Gate]:
        """Return the gates as objects that judge."""
        return [read_gate(self.recipe, gate) for gate in self.gates]

    @property
    def meets_champion(self) -> bool:
        """Whether a gate compares the selected variant with the champion."""
        return any(gate["rule"] in CHAMPION_RULES for gate in self.gates)

    @property
    def warnings(self) -> list[str]:
        """What the recipe's words alone say against its variants."""
        said = []
        for variant in self.recipe.variants():
            swept = self.recipe.merges[int(variant.location[1])].sweep
            said += self.variants[variant.name].resolved().undone(swept)
        said += self.search.warnings if self.search else []
        return list(dict.fromkeys(said))

    @property
    def together(self) -> Mapping[str, MethodRef]:
        """The variants that are merged in one read of the models; none if that would be one alone."""
        found = {name: method for name, method in self.variants.items() if not method.whole_matrices}
        return found if len(found) > 1 else {}

    @property
    def chooses_batches(self) -> bool:
        """Whether the run chooses how many prompts are asked at a time."""
        return self.recipe.evaluates and self.recipe.evaluation.batch_size == "auto"

    @property
    def steps(self) -> int:
        """The number of steps of `merge_and_evaluate` if the gates pass."""
        sources, variants = 1 + len(self.agents), len(self.variants)
        searched = self.search.steps(len(self.agents)) if self.search else 0
        merging = sources + len(["preflight", "extract", "track", "register"]) + len(self.prompts) + 2 * variants
        merging += searched + bool(self.together or (self.search and self.search.may_share)) + self.recipe.store.pack
        if not self.recipe.evaluates:
            return merging
        beside = len(["fetch", "evaluate"]) * len(self.yardsticks) + len(self.servers) + len(self.recipe.routed)
        beside += self.chooses_batches
        return merging + sources + variants + beside + len(["compare", "gate", "report"]) + self.recipe.promotes


def read_gate(recipe: Recipe, gate: Mapping[str, Any]) -> Gate:
    """Return a gate of `recipe` as an object that judges."""
    return parse_gate(gate, trusted=recipe.trust, directory=recipe.directory)
