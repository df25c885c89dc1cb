"""Merges that are divided into parts, for workers of a cluster that make them at the same time."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from prefect.futures import PrefectFuture

from flows.run.planned import Plan
from rammerge import store
from rammerge.checkpoints.family import Family
from rammerge.engine.forecast import output_layout
from rammerge.publishing.counting import rounds_of
from tasks.runtime.result import Result
from tasks.steps.collecting import Counted, Part
from tasks.steps.computing import merge_options
from tasks.steps.counting import overlap_part, statistics_part
from tasks.steps.overlap import OverlapResult, extract
from tasks.steps.parts import part
from tasks.steps.sources import Checked, Fetched, open_family


@dataclass(frozen=True)
class Parts:
    """Parts of merges that were started.

    Attributes:
        merged: their shards, and the statistics.
        counted: what the statistics are made of.
    """

    merged: Sequence[PrefectFuture[Part]] = ()
    counted: Sequence[PrefectFuture[Counted]] = ()

    @property
    def all(self) -> list[PrefectFuture[Any]]:
        """All of them, in the order in which they are needed."""
        return [*self.counted, *self.merged]


def count_parts(
    todo: Plan, sources: Mapping[str, Fetched], checked: PrefectFuture[Checked]
) -> list[PrefectFuture[Counted]]:
    """Start counting in parts what the agents changed, unless that is known."""
    base, agents = sources["base"], {name: sources[name] for name in todo.agents}
    resize, compute = todo.recipe.output.resize, todo.recipe.compute
    if compute.parts < 2 or extract.exists(base=base, agents=agents, groups=todo.groups, resize=resize):
        return []
    count = _count(todo, open_family(base, agents, todo.groups, resize))
    given = (base, agents, todo.groups, resize, compute, checked)
    return [overlap_part.submit(*given, number, count) for number in range(1, count + 1)]


def merge_parts(todo: Plan, sources: Mapping[str, Fetched], overlap: OverlapResult, unmade: Sequence[str]) -> Parts:
    """Start the parts of the merges that are still to be made, but for those that see whole matrices.

    Args:
        todo: the plan.
        sources: the base, called `base`, and the agents.
        overlap: what the agents changed.
        unmade: the variants that are not in the store.
    """
    if todo.recipe.compute.parts < 2:
        return Parts()
    spec, base, agents = todo.recipe, sources["base"], {name: sources[name] for name in todo.agents}
    methods = {name: method for name, method in todo.variants.items() if name in unmade and not method.whole_matrices}
    family = open_family(base, agents, todo.groups, spec.output.resize)
    count = min(spec.compute.parts, len(output_layout(family, merge_options(spec.output, spec.compute)).shards))
    if count < 2 or not methods:
        return Parts()
    given = (base, agents, todo.groups, methods, spec.output, spec.compute, overlap)
    turns = rounds_of(family, [method.resolved() for method in methods.values()], overlap.whole())
    counted: list[list[PrefectFuture[Counted]]] = []
    for turn in range(1, turns + 1):
        counted.append(_statistics(given, _count(todo, family), turn, list(counted)))
    measured = part.submit(*given, 0, count, counted=counted)
    merged = [part.submit(*given, number, count, measured) for number in range(1, count + 1)]
    return Parts([measured, *merged], [each for parts in counted for each in parts])


def drop_parts(parts: Iterable[PrefectFuture[Any]]) -> None:
    """Remove parts from the store, once what they were made for is whole."""
    for each in parts:
        made: Result = each.result()
        store.drop(made.path.parent.name, made.path.name)


def _count(todo: Plan, family: Family) -> int:
    """Return in how many parts the tensors are counted."""
    return min(todo.recipe.compute.parts, len(family.floats))


def _statistics(
    given: tuple[Any, ...], count: int, turn: int, earlier: Sequence[Sequence[PrefectFuture[Counted]]]
) -> list[PrefectFuture[Counted]]:
    """Start a round of counting what statistics are made of."""
    return [statistics_part.submit(*given, number, count, turn, earlier) for number in range(1, count + 1)]
