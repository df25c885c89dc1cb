"""Statistics of the whole model that merges need, measured in parts by several processes before the first of them."""

from collections.abc import Sequence
from functools import reduce
from operator import or_
from typing import Any

from rammerge.checkpoints.family import Family
from rammerge.engine.options import MergeOptions
from rammerge.engine.passes.measuring import passes_of
from rammerge.engine.passes.overlap import known_from
from rammerge.engine.passes.parts import Rounds, join_parts, measure_part, rounds, share
from rammerge.engine.passes.statistics import Pass, Statistics
from rammerge.engine.progress import OnProgress
from rammerge.overlap import Overlap
from rammerge.rules import ResolvedMethod, Rule


def rounds_of(family: Family, methods: Sequence[ResolvedMethod], overlap: Overlap) -> int:
    """Return in how many rounds parts of the model are read for what methods need besides the overlap."""
    return rounds(*_asked(_bound(family, methods), overlap))


def count_part(
    family: Family,
    methods: Sequence[ResolvedMethod],
    options: MergeOptions,
    part: tuple[int, int],
    *,
    overlap: Overlap,
    earlier: Rounds = (),
    progress: OnProgress | None = None,
) -> Any:
    """Return what some tensors contribute to the statistics of methods in one round, as JSON for `merge_part`.

    Args:
        family: base and agents.
        methods: what will be merged together.
        options: see MergeOptions.
        part: its number, from 1, and the number of parts.
        overlap: counts of the same family.
        earlier: what the parts of the rounds before returned, in order.
        progress: called from worker threads.

    Raises:
        InputError: a NaN or an infinity in these tensors of an input.
    """
    passes, known = _asked(_bound(family, methods), overlap)
    found = measure_part(family, passes, join_parts(passes, known, earlier), share(family, *part), options, progress)
    family.check_unchanged()
    return found


def counted(rules: Sequence[Rule], overlap: Overlap | None, found: Rounds) -> Statistics:
    """Return what is known of the whole model after rounds of `count_part`."""
    return join_parts(*_asked(rules, overlap), found)


def _bound(family: Family, methods: Sequence[ResolvedMethod]) -> list[Rule]:
    return [method.bind_to(family) for method in methods]


def _asked(rules: Sequence[Rule], overlap: Overlap | None) -> tuple[list[Pass[Any]], Statistics]:
    known = [known_from(overlap, rule.agents, rule.mask) for rule in rules]
    return passes_of(rules), reduce(or_, known, Statistics())
