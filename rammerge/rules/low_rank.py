"""What methods make of agents that changed matrices in few directions, as low-rank adapters do."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rammerge.rules.rule import Rule

if TYPE_CHECKING:
    from rammerge.checkpoints.family import Family


def about_directions(rule: Rule, directions: Sequence[int | None]) -> list[str]:
    """Return a sentence if the method suffers from what was found in most matrices.

    Args:
        rule: the method and the agents.
        directions: in how many directions each agent, or only their sum, changed most matrices; None if not in few.
    """
    harm, of_sum = rule.settled.method.low_rank, any(method.of == "sum" for method in rule.matrices)
    if harm is None or (of_sum and None in directions):
        return []
    together = len(directions) < len(rule.agents)
    names = [", ".join(map(repr, rule.agents)) + " together"] if together else list(map(repr, rule.agents))
    pairs = zip(names, directions, strict=True) if directions else ()
    few = [f"{name} (rank {found})" for name, found in pairs if found is not None]
    return [f"most matrices were changed in few directions by {', '.join(few)}: {harm}"] if few else []


def known_directions(family: Family, measured: Sequence[int | None]) -> list[int | None]:
    """Return what a merge measured, with the ranks that adapters declare in place of what rounding made of them."""
    declared = declared_directions(family)
    if len(measured) < len(declared):  # of their sum
        return list(measured) if None in declared else declared
    return [own or seen for own, seen in zip(declared, measured, strict=True)]


def declared_directions(family: Family) -> list[int | None]:
    """Return what is known of each agent without reading weights: an adapter's rank, if it is low for this model."""
    shapes = [family.base.tensors[name].shape for name in family.floats]
    shorts = [min(shape) for shape in shapes if len(shape) == 2 and min(shape) > 1]
    most = statistics.median(shorts) / 2 if shorts else 0
    return [_sum([family.sources[member].rank for member in members], most) for members in _members(family)]


def _members(family: Family) -> list[Sequence[str]]:
    return [family.groups.get(name, (name,)) for name in family.agents]


def _sum(ranks: Sequence[int | None], most: float) -> int | None:
    """Return the rank of a mean of models, None unless it is known and below `most`."""
    known = [rank for rank in ranks if rank is not None]
    return sum(known) if len(known) == len(ranks) and sum(known) < most else None
