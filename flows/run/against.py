"""What is known of the agents before they are merged, and says something against variants."""

from collections.abc import Mapping

from flows.run.planned import Plan
from rammerge.checkpoints.family import Family
from rammerge.rules.low_rank import about_directions, declared_directions
from tasks.steps.methods import said_of
from tasks.steps.overlap import extract
from tasks.steps.sources import Fetched, Model, open_family


def against_adapters(plan: Plan, sources: Mapping[str, Fetched]) -> list[str]:
    """Return what the ranks of agents that were adapters say against variants, now that all models are here."""
    if all(model.rank is None for model in sources.values()):
        return []
    agents = {name: sources[name] for name in plan.agents}
    return of_adapters(plan, open_family(sources["base"], agents, plan.groups, plan.recipe.output.resize))


def of_adapters(plan: Plan, family: Family) -> list[str]:
    """Return what the ranks of adapters say against variants."""
    directions = declared_directions(family)
    return said_of(plan.variants, lambda method: about_directions(method.bind(family.agents), directions))


def of_overlap(plan: Plan, sources: Mapping[str, Model]) -> list[str]:
    """Return what an earlier run's overlap of these agents says of them, and against variants."""
    if {"base", *plan.agents} - sources.keys():
        return []
    agents = {name: sources[name] for name in plan.agents}
    given = {"base": sources["base"], "agents": agents, "groups": plan.groups, "resize": plan.recipe.output.resize}
    found = extract.find(**given)
    return [*found.warnings, *found.against(plan.variants)] if found else []
