"""Pass 1: compute the statistics that a method, or a user, asks for."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from rammerge.checkpoints.family import Family
from rammerge.engine.options import MergeOptions
from rammerge.engine.passes.densities import DensitiesByRule
from rammerge.engine.passes.overlap import OverlapCounts
from rammerge.engine.passes.statistics import Pass, Statistics
from rammerge.engine.running import Runner
from rammerge.engine.session import Progress, Session
from rammerge.numerics.masks import Mask
from rammerge.overlap import Overlap

# Raise this when the counts of the same inputs change. It is part of cache keys.
OVERLAP_VERSION = 2


def runners_for(session: Session, passes: Sequence[Pass[Any]]) -> dict[Pass[Any], Runner]:
    """Return a runner for each pass. Call this before the memory plan is made, because the plan counts their needs."""
    agents = len(session.agents)
    for each in passes:
        session.reserve(each.reserved(agents))
    return {each: Runner(session, each.function(agents), each.height) for each in passes}


def measure(session: Session, runners: Mapping[Pass[Any], Runner]) -> Statistics:
    """Compute the statistics that `runners_for` prepared.

    Raises:
        InputError: a NaN or an infinity in the base or in an agent.
    """
    found = Statistics()
    for each, runner in runners.items():
        found |= Statistics({each: each.collect(session, runner, found)})
    return found


def measure_overlap(
    family: Family,
    mask: Mask | None = None,
    options: MergeOptions | None = None,
    *,
    densities: bool = True,
    progress: Callable[[Progress], None] | None = None,
) -> Overlap:
    """Count which elements each agent changed, alone or with others (RAM paper Sec. 3.1), and compare directions.

    Args:
        family: base and agents.
        mask: what counts as changed; by default |delta| > 1e-5.
        options: where to compute, and with how much memory.
        densities: whether to measure densities by several rules too, which takes another pass.
        progress: called from worker threads.

    Raises:
        InputError: an input has a NaN or an infinity.
    """
    counts, by_rule = OverlapCounts(mask or Mask(), products=True), DensitiesByRule()
    with Session(family, options or MergeOptions(), progress) as session:
        runners = runners_for(session, [counts, by_rule] if densities else [counts])
        for runner in runners.values():
            runner.settle()
        statistics = measure(session, runners)
    return replace(statistics[counts], densities=statistics.find(by_rule) or {})
