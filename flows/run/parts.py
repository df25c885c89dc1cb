"""Merges that are divided into parts, for workers of a cluster that make them at the same time."""

from collections.abc import Mapping, Sequence

from prefect.futures import PrefectFuture

from flows.run.planned import Plan
from rammerge import store
from rammerge.engine.forecast import output_layout
from tasks.steps.collecting import Part
from tasks.steps.computing import merge_options
from tasks.steps.overlap import OverlapResult
from tasks.steps.parts import part
from tasks.steps.sources import Fetched, open_family


def merge_parts(
    todo: Plan, sources: Mapping[str, Fetched], overlap: OverlapResult, unmade: Sequence[str]
) -> list[PrefectFuture[Part]]:
    """Start the parts of the merges that are still to be made, but for those that see whole matrices.

    Args:
        todo: the plan.
        sources: the base, called `base`, and the agents.
        overlap: what the agents changed.
        unmade: the variants that are not in the store.
    """
    if todo.recipe.compute.parts < 2:
        return []
    spec, base, agents = todo.recipe, sources["base"], {name: sources[name] for name in todo.agents}
    methods = {name: method for name, method in todo.variants.items() if name in unmade and not method.whole_matrices}
    family = open_family(base, agents, todo.groups, spec.output.resize)
    count = min(spec.compute.parts, len(output_layout(family, merge_options(spec.output, spec.compute)).shards))
    if count < 2 or not methods:
        return []
    given = (base, agents, todo.groups, methods, spec.output, spec.compute, overlap)
    measured = part.submit(*given, 0, count)
    return [measured, *(part.submit(*given, number, count, measured) for number in range(1, count + 1))]


def drop_parts(parts: Sequence[PrefectFuture[Part]]) -> None:
    """Remove parts from the store, once they are whole models."""
    for each in parts:
        store.drop(part.kind, each.result().path.name)
