"""Statistics of the whole model from parts of it, which different processes measure.

A part is some of the tensors. Most statistics are known by tensor, and those of parts only have to be put together. A
rank over the whole model takes two rounds: where to count the second time is known once the first counts are added.
"""

from collections.abc import Sequence
from itertools import compress
from typing import Any

from rammerge.checkpoints.family import Family
from rammerge.checkpoints.layout import places
from rammerge.engine.options import MergeOptions
from rammerge.engine.passes.measuring import measure_missing
from rammerge.engine.passes.statistics import Pass, Statistics
from rammerge.engine.progress import OnProgress
from rammerge.engine.session import Session

# By round what each part found, as JSON.
Rounds = Sequence[Sequence[Any]]


def share(family: Family, number: int, of: int) -> list[str]:
    """Return the float tensors of a part, from 1 to `of`: neighbors, and about as many elements in each part."""
    sizes = [family.base.tensors[name].numel for name in family.floats]
    return list(compress(family.floats, [place == number for place in places(sizes, of)]))


def rounds(passes: Sequence[Pass[Any]], known: Statistics) -> int:
    """Return in how many rounds parts find what is not known."""
    missing = [each for each in passes if known.find(each) is None]
    return max((1 if each in each.counted(known) else 2 for each in missing), default=0)


def measure_part(
    family: Family,
    passes: Sequence[Pass[Any]],
    known: Statistics,
    tensors: Sequence[str],
    options: MergeOptions,
    progress: OnProgress | None = None,
) -> Any:
    """Return what some tensors contribute to the next round of statistics that are not known, as JSON.

    Raises:
        InputError: a NaN or an infinity in these tensors of an input.
    """
    wanted = _next(passes, known)
    with Session(family, options, progress, tensors=tensors) as session:
        return measure_missing(session, wanted, known).to_json(wanted)


def join_parts(passes: Sequence[Pass[Any]], known: Statistics, found: Rounds) -> Statistics:
    """Return what is known once the parts of some rounds, of each round in the order of its parts, are put together.

    Raises:
        KeyError, TypeError, ValueError: the content is not what `measure_part` returned for these passes.
    """
    for contents in found:
        wanted = _next(passes, known)
        results = [Statistics.from_json(wanted, content) for content in contents]
        known |= Statistics({each: each.join([result[each] for result in results]) for each in wanted})
    return known


def _next(passes: Sequence[Pass[Any]], known: Statistics) -> list[Pass[Any]]:
    missing = [each for each in passes if known.find(each) is None]
    wanted = dict.fromkeys(count for each in missing for count in each.counted(known))
    return [each for each in wanted if known.find(each) is None]
