"""Pass 1: compute the statistics that a method, or a user, asks for."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from rammerge.checkpoints.family import Family
from rammerge.engine.computing import compute
from rammerge.engine.matrices.ranks import measure_ranks
from rammerge.engine.options import MergeOptions
from rammerge.engine.output.chunks import Unit
from rammerge.engine.passes.densities import ChangesByRule
from rammerge.engine.passes.merge_block import MergeRule
from rammerge.engine.passes.overlap import OverlapCounts
from rammerge.engine.passes.statistics import Pass, Scan, Scans, Statistics
from rammerge.engine.progress import OnProgress
from rammerge.engine.running import Runner
from rammerge.engine.session import Session
from rammerge.errors import InputError
from rammerge.numerics.masks import Mask
from rammerge.overlap import Overlap

# Raise this when the counts of the same inputs change. It is part of cache keys.
OVERLAP_VERSION = 3


def passes_of(rules: Sequence[MergeRule]) -> list[Pass[Any]]:
    """Return the statistics that rules read, each once."""
    return list(dict.fromkeys(each for rule in rules for each in rule.passes))


def runners_for(session: Session, passes: Sequence[Pass[Any]]) -> dict[Pass[Any], Runner]:
    """Return a runner for each pass. Call this before the memory plan is made, because the plan counts their needs."""
    agents = len(session.agents)
    session.reserve(sum(each.reserved(agents) for each in passes))
    functions = {each: (each.function(agents), each.height) for each in passes}
    runners = {key: Runner(session, *key) for key in dict.fromkeys(functions.values())}
    return {each: runners[key] for each, key in functions.items()}


def measure(session: Session, runners: Mapping[Pass[Any], Runner], known: Statistics | None = None) -> Statistics:
    """Compute the statistics that `runners_for` prepared. They share reads, and wait for those that they need.

    Args:
        session: the inputs.
        runners: of the passes.
        known: what was computed before.

    Returns:
        The statistics, with those that were known.

    Raises:
        InputError: a NaN or an infinity in the base or in an agent; or a pass needs one that nobody asks for.
    """
    found, left = known or Statistics(), dict(runners)
    at_work: dict[Pass[Any], Scans[Any]] = {}
    while left or at_work:
        for each in [each for each in left if all(found.find(need) is not None for need in each.needs)]:
            at_work[each] = each.collect(session, left.pop(each), found)
        if not at_work:
            raise _refuse_needy(left, found)
        wanted: list[Scan] = []
        for each, scans in list(at_work.items()):
            try:
                wanted += next(scans)
            except StopIteration as end:
                found |= Statistics({each: end.value})
                del at_work[each]
        if wanted:
            _read(session, wanted)
    return found


def _refuse_needy(passes: Iterable[Pass[Any]], found: Statistics) -> InputError:
    """Return the error for a method of the user's own that names a pass and not the pass which that one needs."""
    needy, need = next((each, need) for each in passes for need in each.needs if found.find(need) is None)
    return InputError(
        f"the statistic '{needy.name}' needs '{need.name}', which the method does not ask for; add it to its `passes`"
    )


def measure_missing(
    session: Session, passes: Sequence[Pass[Any]], known: Statistics, others: Iterable[Runner] = ()
) -> Statistics:
    """Return `known` with the statistics of those `passes` that it lacks.

    All runners of the session are settled before one runs: those made here, and the `others`, which run later.
    """
    runners = runners_for(session, [each for each in passes if known.find(each) is None])
    for runner in (*others, *runners.values()):
        runner.settle()
    return measure(session, runners, known) if runners else known


def _read(session: Session, scans: Sequence[Scan]) -> None:
    """Read each tensor once for all scans that are about it."""
    wanted: dict[str, list[Scan]] = {}
    for scan in scans:
        for name in scan.tensors:
            wanted.setdefault(name, []).append(scan)

    def work(unit: Unit) -> None:
        those = wanted[unit.tensor]
        works = [scan.begin(unit) for scan in those]
        counted = compute(session, unit, [(scan.runner, done) for scan, done in zip(those, works, strict=True)])
        for scan, done, counts in zip(those, works, counted, strict=True):
            scan.end(unit, done, counts)

    session.run(" and ".join(dict.fromkeys(scan.stage for scan in scans)), list(session.blocks(list(wanted))), work)


def measure_overlap(
    family: Family,
    mask: Mask | None = None,
    options: MergeOptions | None = None,
    *,
    densities: bool = True,
    ranks: bool = False,
    progress: OnProgress | None = None,
) -> Overlap:
    """Count which elements each agent changed, alone or with others (RAM paper Sec. 3.1), and compare directions.

    Args:
        family: base and agents.
        mask: what counts as changed; by default |delta| > 1e-5.
        options: where to compute, and with how much memory.
        densities: whether to measure densities by several rules too, which takes another pass.
        ranks: whether to measure the ranks of matrices too, which takes longer than all the rest.
        progress: called from worker threads.

    Raises:
        InputError: an input has a NaN or an infinity.
    """
    passes = overlap_passes(mask, densities=densities)
    options = options or MergeOptions()
    with Session(family, options, progress) as session:
        statistics = measure_missing(session, passes, Statistics())
    measured = measure_ranks(family, options, progress) if ranks else None
    return replace(overlap_of(passes, statistics), ranks=measured)


def overlap_passes(mask: Mask | None = None, *, densities: bool = True) -> list[Pass[Any]]:
    """Return the passes of which `overlap_of` makes an overlap; see `measure_overlap`."""
    return [OverlapCounts(mask or Mask(), products=True), *([ChangesByRule()] if densities else [])]


def overlap_of(passes: Sequence[Pass[Any]], statistics: Statistics) -> Overlap:
    """Return the overlap from the statistics of `overlap_passes`."""
    counts, *by_rule = (statistics[each] for each in passes)
    densities = {name: changes.densities() for found in by_rule for name, changes in found.items()}
    overlap: Overlap = replace(counts, densities=densities)
    return overlap
