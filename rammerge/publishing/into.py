"""Merging into a model that is loaded: its own parameters get the bytes that a written file would have."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rammerge.checkpoints.family import Family
from rammerge.engine.blocks import added
from rammerge.engine.buffers import bytes_of
from rammerge.engine.computing import compute
from rammerge.engine.options import MergeOptions
from rammerge.engine.output.chunks import Unit
from rammerge.engine.passes.measuring import measure_missing
from rammerge.engine.passes.merging import Merging, merge_runners
from rammerge.engine.passes.overlap import OverlapCounts, known_from
from rammerge.engine.passes.statistics import Statistics
from rammerge.engine.progress import OnProgress
from rammerge.engine.session import Session
from rammerge.errors import InputError
from rammerge.overlap import Overlap, Survival
from rammerge.publishing.finishing import warnings_of
from rammerge.publishing.parameters import parameters_of
from rammerge.publishing.report import Trial
from rammerge.rules import ResolvedMethod, Rule

if TYPE_CHECKING:
    from torch import Tensor


def merge_into(
    model: Any,
    family: Family,
    method: ResolvedMethod,
    options: MergeOptions,
    *,
    overlap: Overlap | None = None,
    progress: OnProgress | None = None,
) -> Trial:
    """Merge a family by `method` into the parameters and buffers of a loaded model, and write nothing to a disk.

    They get the bytes of the file that `merge_family` would write. If an input turns out to have a NaN or an infinity,
    or a result to overflow, a part of them has changed already.

    Args:
        model: a torch module with the base's tensors, in the dtype and on the device of `options`.
        family: base and agents; `Family.held` keeps them in memory between trials.
        method: see rammerge.rules.resolve.
        options: see MergeOptions.
        overlap: counts from an earlier `measure_overlap` of the family, used if its mask is the method's.
        progress: called from worker threads.

    Raises:
        InputError: anything wrong with the inputs or the model.
        RammergeError: an input changed.
    """
    began = time.perf_counter()
    family.check_unchanged()
    rule = method.bind_to(family)
    if rule.matrices:
        raise InputError(f"method '{rule.name}' merges whole matrices by way of a file; give `out` instead of `into`")
    with Session(family, options, progress, outputs=0) as session:
        targets = parameters_of(model, family.base, options.dtype, session.device)
        statistics, counts = _compute(session, rule, targets, overlap)
        notes = session.notes
    family.check_unchanged()
    survival = Survival.from_counts(counts, rule.agents, rule.improves_on)
    said = (*family.warnings, *warnings_of(family, rule, statistics, survival, options.dtype), *notes)
    counted, seconds = statistics.find(OverlapCounts(rule.mask)), time.perf_counter() - began
    return Trial(survival, rule.factors(statistics), counted, said, seconds, options.dtype)


def _compute(
    session: Session, rule: Rule, targets: Mapping[str, Tensor], overlap: Overlap | None
) -> tuple[Statistics, list[int]]:
    """Merge into vectors, and return the rule's statistics and the counts of the whole model."""
    merging, known = merge_runners(session, [rule]), known_from(overlap, rule.agents, rule.mask)
    statistics = measure_missing(session, rule.passes, known, merging.values())
    return statistics, _merge(session, Merging(session, rule, statistics, merging), targets)


def _merge(session: Session, merging: Merging, targets: Mapping[str, Tensor]) -> list[int]:
    """Merge into vectors, and return the counts of the whole model."""
    counts, lock, floats = [0] * merging.width, threading.Lock(), frozenset(session.floats)

    def work(unit: Unit) -> None:
        nonlocal counts
        target = targets[unit.tensor][unit.start : unit.stop]
        if unit.tensor not in floats:
            stored = target.cpu()
            session.files.read(session.base.tensors[unit.tensor], unit.start, bytes_of(stored))
            target.copy_(stored)
            return
        result = bytes_of(target) if session.device == "cpu" else target
        (found,) = compute(session, unit, [merging.work(unit, result)])
        with lock:
            counts = added(counts, found)

    session.run("merge", list(session.blocks(list(targets))), work)
    return counts
