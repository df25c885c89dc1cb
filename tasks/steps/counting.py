"""What merges need to know of the whole model, counted in parts: each is a step, so that workers share the reading.

A part reads some of the tensors. The steps that put parts together get the same bytes as if one process had read all.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from rammerge.checkpoints.mergeable import Resize
from rammerge.engine.options import MergeOptions
from rammerge.engine.passes.measuring import OVERLAP_VERSION, overlap_passes
from rammerge.engine.passes.parts import measure_part, share
from rammerge.engine.passes.statistics import Statistics
from rammerge.errors import RammergeError
from rammerge.publishing.counting import count_part
from rammerge.publishing.identity import MERGE_VERSION
from rammerge.recipe import Compute, Output
from tasks.runtime.step import step
from tasks.runtime.turns import merging_on
from tasks.steps.collecting import Counted, read_counted, write_counted
from tasks.steps.computing import machine, merge_options, report_progress
from tasks.steps.methods import MethodRef
from tasks.steps.overlap import OverlapResult
from tasks.steps.sources import Checked, Groups, Model, open_family


@step(
    "overlap_part",
    version=OVERLAP_VERSION,
    run_name="overlap part {number} of {parts}",
    result=Counted,
    ignore=["checked", "compute"],
    work="merge",
)
def overlap_part(
    out: Path,
    base: Model,
    agents: Mapping[str, Model],
    groups: Groups,
    resize: Resize,
    compute: Compute,
    checked: Checked,
    number: int,
    parts: int,
) -> None:
    """Count for the step `extract` what agents changed in some tensors."""
    family = open_family(base, agents, groups, resize)
    with merging_on(compute.merge_on) as device:
        options = MergeOptions(**machine(compute, device))
        tensors = share(family, number, parts)
        found = measure_part(family, overlap_passes(), Statistics(), tensors, options, report_progress())
    write_counted(out, found)


@step(
    "statistics_part",
    version=MERGE_VERSION,
    run_name="statistics part {number} of {parts}, round {turn}",
    result=Counted,
    ignore=["overlap", "compute", "earlier"],
    work="merge",
)
def statistics_part(
    out: Path,
    base: Model,
    agents: Mapping[str, Model],
    groups: Groups,
    methods: Mapping[str, MethodRef],
    output: Output,
    compute: Compute,
    overlap: OverlapResult,
    number: int,
    parts: int,
    turn: int,
    earlier: Sequence[Sequence[Counted]] = (),
) -> None:
    """Count what variants need of some tensors, in the first round or in one that needs what `earlier` ones found.

    Raises:
        RammergeError: what an earlier one found was removed meanwhile.
    """
    known = read_counted(earlier)
    if len(known) < len(earlier):
        raise RammergeError("counts of an earlier round were removed from the store during the run; run again")
    family = open_family(base, agents, groups, output.resize)
    with merging_on(compute.merge_on) as device:
        found = count_part(
            family,
            [method.resolved() for method in methods.values()],
            merge_options(output, compute, device),
            (number, parts),
            overlap=overlap.whole(),
            earlier=known,
            progress=report_progress(),
        )
    write_counted(out, found)
