"""What is still to be merged, in which groups, and whether the disk has room for it."""

from collections.abc import Mapping, Sequence

from rich.filesize import decimal

from flows.run.planned import Plan
from rammerge.checkpoints.family import Family
from rammerge.engine.forecast import output_layout
from rammerge.engine.matrices.updates import update_bytes
from rammerge.engine.options import MergeOptions
from rammerge.errors import InputError
from rammerge.publishing.grouping import Group, grouped
from rammerge.recipe import Location
from rammerge.rules import ResolvedMethod
from rammerge.system.home import home
from rammerge.system.space import free_bytes, require_space
from tasks.steps.computing import merge_options
from tasks.steps.merging import merge
from tasks.steps.sources import Model, open_family


def require_room(plan: Plan, sources: Mapping[str, Model]) -> Sequence[str]:
    """Return the variants that are still to be merged, now that all models are here, if they fit on the disk.

    Args:
        plan: what is to be done.
        sources: the base, called `base`, and the agents.

    Raises:
        InputError: how much is needed, how much is free, and the fix.
    """
    unmade = unmade_variants(plan, sources)
    if unmade or plan.search:
        agents = {name: sources[name] for name in plan.agents}
        family = open_family(sources["base"], agents, plan.groups, plan.recipe.output.resize)
        merge_groups(plan, family, unmade)  # begins to compile
        disk_room(plan, family, unmade)
    return unmade


def unmade_variants(plan: Plan, sources: Mapping[str, Model]) -> Sequence[str]:
    """Return the variants that are not in the store: all of them where a source is missing."""
    if {"base", *plan.agents} - sources.keys():
        return list(plan.variants)
    agents = {name: sources[name] for name in plan.agents}
    given = {"base": sources["base"], "agents": agents, "groups": plan.groups, "output": plan.recipe.output}
    return [name for name, method in plan.variants.items() if not merge.exists(method=method, **given)]


def _methods(plan: Plan, unmade: Sequence[str]) -> dict[str, tuple[Location, ResolvedMethod]]:
    """Return the methods of variants that are not in the store, and those of a search, with their places."""
    named = {name: (plan.recipe.place_of(name), plan.variants[name].resolved()) for name in unmade}
    if plan.search is None:
        return named
    space, location = plan.search.space, plan.search.location
    return named | {f"trials of {method}": (location, space.settle(method, {})) for method in space.methods}


def merge_groups(plan: Plan, family: Family, unmade: Sequence[str]) -> Sequence[Group[str]]:
    """Return what will be merged together, and the forecasts."""
    rules = {}
    for name, (location, method) in _methods(plan, unmade).items():
        try:
            rules[name] = method.bind_to(family)
        except InputError as error:
            raise plan.recipe.error(location, str(error)) from None
    return grouped(family, rules, _options(plan))


def _options(plan: Plan) -> MergeOptions:
    """Return the engine's options; those of a processor where another machine merges, whose GPUs are not known."""
    device = "cpu" if plan.recipe.compute.workers.merge else None
    return merge_options(plan.recipe.output, plan.recipe.compute, device)


def disk_room(plan: Plan, family: Family, unmade: Sequence[str]) -> str:
    """Return what the merges that are still to be made take of the disk; InputError if it is too much."""
    size = output_layout(family, _options(plan)).size
    whole = any(method.whole_matrices for _, method in _methods(plan, unmade).values())
    # What a search finds is merged when its trials are gone.
    count = len(unmade) + (max(plan.search.models, len(plan.search.names)) if plan.search else 0)
    needed = size * count + (update_bytes(family) if whole else 0)  # one merge at a time has updates
    require_space(
        home(),
        needed,
        what=f"the merge of {count} variant{'s' * (count > 1)}",
        where=str(home()),
        fix="make room, set RAMMERGE_HOME to a larger disk, or use fewer variants or a shorter output.dtype",
    )
    return f"disk: {decimal(needed)} of {decimal(free_bytes(home()))} free"
