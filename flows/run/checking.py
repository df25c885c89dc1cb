"""Check a plan without doing its work: by the models' headers, the suites' tasks and prompts, free memory and disk."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from evaluation.runners.rehearsal import Rehearsed
from evaluation.search.schedule import answers
from flows.run.against import of_adapters, of_overlap
from flows.run.code import foreign_code, models_code
from flows.run.licences import require_licences
from flows.run.planned import Plan, PlannedSearch
from flows.run.pools import check_pools, require_server
from flows.run.power import asked_by_gates, detectable, items_of
from flows.run.room import disk_room, merge_groups, unmade_variants
from flows.run.sharing import require_shared
from flows.run.yardsticks import meet_servers
from rammerge.checkpoints.companions import compare_companions
from rammerge.checkpoints.family import Family
from rammerge.engine.options import check_device
from rammerge.errors import InputError
from tasks.records.connection import require_mlflow
from tasks.runtime.cluster import require_cluster
from tasks.runtime.limits import limit_steps
from tasks.search.study import open_database
from tasks.steps.rehearsing import Rehearsal
from tasks.steps.sources import Model, Origin, fetch


def check(plan: Plan) -> list[str]:
    """Return the findings, one line each. MLflow must answer, with the credentials that a run will use.

    Raises:
        InputError: a part of the recipe cannot work; the message names it and the fix.
    """
    limit_steps(plan.recipe.compute.timeout)  # of this check too, which runs the suites' code
    require_server(plan.recipe)
    _require_devices(plan)
    _require_cluster(plan)
    conditions = plan.conditions
    origins = {"base": plan.base, **plan.agents, **plan.yardsticks}
    remote = [origin.source for origin in origins.values() if not _is_local(origin)]
    if not remote:  # most models lie where the recipe says
        here = {name: Path(origin.source) for name, origin in origins.items()}
        Rehearsal(plan.suites, here, conditions).expect()
    require_mlflow()
    if plan.search:
        _require_database(plan, plan.search)
    lines = [*_planned(plan), *require_shared(plan), *_away(plan), *check_pools(plan)]
    if remote:
        found = Rehearsal(plan.suites, {}, conditions).found()
        return [*lines, *_told(plan, found), f"from the hub, checked after the download: {', '.join(remote)}"]
    return [*lines, *_here(plan)]


def _here(plan: Plan) -> list[str]:
    """Return the findings on models that need no download."""
    agents = {name: origin.source for name, origin in plan.agents.items()}
    family = Family.open(plan.base.source, agents, groups=plan.groups, resize=plan.recipe.output.resize)
    require_licences(plan, {name: model.path for name, model in family.sources.items()})
    heard = compare_companions(family.sources, plan.recipe.output.tokenizer)
    work = "merged already: every variant"
    fetched = _fetched(plan)
    unmade = unmade_variants(plan, fetched)
    if unmade or plan.search:
        memory = max(group.forecast.memory for group in merge_groups(plan, family, unmade))
        work = f"memory: {memory / 2**20:.0f} MiB for the merges; {disk_room(plan, family, unmade)}"
    models = {name: model.path for name, model in family.sources.items()}
    models |= {name: Path(origin.source) for name, origin in plan.yardsticks.items()}
    found = Rehearsal(plan.suites, models, plan.conditions).found()
    read = [prompts.described(family.sources["base"].path) for prompts in plan.prompts.values()]
    heard += [*of_adapters(plan, family), *of_overlap(plan, fetched)]
    heard += models_code(family.sources, trusted=plan.recipe.evaluation.trust_remote_code)
    return [*read, *_told(plan, found, *family.warnings, *heard), work]


def _planned(plan: Plan) -> Iterator[str]:
    """Yield what is to be made, and how it is judged."""
    suites = [*(suite.name for suite in plan.suites), *plan.unfetched]
    named = [*plan.variants, *(plan.search.names if plan.search else ())]
    yield f"{len(named)} variant{'s' * (len(named) > 1)}: {', '.join(named)}"
    if suites:
        yield f"{len(suites)} suite{'s' * (len(suites) > 1)}: {', '.join(suites)}"
    else:
        yield "evaluation: none, so nothing is scored, and nothing is promoted"
    if plan.recipe.beside:
        yield f"measured against: {', '.join(plan.recipe.beside)}"
    yield from foreign_code(plan)


def _away(plan: Plan) -> Iterator[str]:
    """Yield the servers that are away; InputError for one that cannot be."""
    for name, server in meet_servers(plan).items():
        if server.away:
            yield f"warning: the server of {name} is away, so its earlier answers count"


def _require_devices(plan: Plan) -> None:
    """Check that this machine has the devices that the recipe names."""
    for place, device in plan.recipe.compute.devices().items():
        try:
            check_device(device)
        except InputError as error:
            raise plan.recipe.error(place, str(error)) from error


def _require_cluster(plan: Plan) -> None:
    """Check that the cluster that runs the steps, if any, is there."""
    try:
        require_cluster(plan.recipe.compute)
    except InputError as error:
        raise plan.recipe.error(("compute", "runner"), str(error)) from error


def _told(plan: Plan, found: Rehearsed, *warnings: str) -> Iterator[str]:
    yield from plan.unfetched.values()
    gates: list[str] = []
    if not plan.unfetched:  # otherwise the number of items is not known
        if plan.search:
            yield _budget(plan, plan.search, list(found.validation_items.values()))
        items = items_of(found)
        yield from detectable(plan, items)
        gates = asked_by_gates(plan, items)
    for warning in (*plan.warnings, *warnings, *found.warnings, *gates):
        yield f"warning: {warning}"


def _require_database(plan: Plan, search: PlannedSearch) -> None:
    """Open the database of trials that the recipe names, which makes its tables; InputError if it does not open."""
    if search.written.database is not None:
        try:
            open_database(search.written.database)
        except InputError as error:
            raise plan.recipe.error((*search.location, "search", "database"), str(error)) from None


def _budget(plan: Plan, search: PlannedSearch, sizes: Sequence[int]) -> str:
    """Return what a search will take; InputError if its budget is too small."""
    trials = search.trials(sizes)
    if not trials:
        least = answers(2, sizes)
        raise plan.recipe.error(
            (*search.location, "search", "items"), f"two trials take {least} answers; give at least as many"
        )
    wanted, all_items = answers(trials, sizes), trials * sum(sizes)
    minutes = f", or as many as fit into {search.written.minutes:g} minutes" if search.written.minutes else ""
    methods = ", ".join(search.space.methods)
    return (
        f"search: {trials} trials of {methods}{minutes}; {wanted:,} answers to validation items, "
        f"{wanted / all_items:.0%} of all items of all trials; at most {search.models} trial models on the disk"
    )


def require_answers(plan: Plan, sources: Mapping[str, Model]) -> list[str]:
    """Return what the user should know before the models are evaluated, now that all are here; see `require_room`.

    Raises:
        InputError: a model cannot be evaluated on a suite; the message names both and the fix.
    """
    models = {name: model.path for name, model in sources.items()}
    found = Rehearsal(plan.suites, models, plan.conditions).found()
    return [*plan.warnings, *found.warnings, *asked_by_gates(plan, items_of(found))]


def _fetched(plan: Plan) -> Mapping[str, Model]:
    """Return the models that an earlier run has fetched."""
    base = fetch.find(origin=plan.base)
    found = {name: fetch.find(origin=origin, base=base) for name, origin in plan.agents.items()}
    return {name: model for name, model in {"base": base, **found}.items() if model is not None}


def _is_local(origin: Origin) -> bool:
    return Path(origin.source).is_absolute()
