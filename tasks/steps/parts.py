"""A large merge in parts: each is a step, so that workers of a cluster merge one model at the same time.

A part makes some of the shards, and reads only what they need. What methods need to know of the whole model is counted
before (tasks.steps.counting). The step that merges collects the shards by hard link, checks them and adds what makes
them a model.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from rammerge.publishing.identity import MERGE_VERSION
from rammerge.publishing.making import merge_part
from rammerge.recipe import Compute, Output
from tasks.runtime.step import step
from tasks.runtime.turns import merging_on
from tasks.steps.collecting import Counted, Part, collect, read_counted
from tasks.steps.computing import merge_options, report_progress
from tasks.steps.methods import MethodRef
from tasks.steps.overlap import OverlapResult
from tasks.steps.sources import Groups, Model, open_family


@step(
    "merge_part",
    version=MERGE_VERSION,
    run_name="merge part {number} of {parts}",
    result=Part,
    ignore=["overlap", "compute", "measured", "counted"],
    work="merge",
)
def part(
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
    measured: Part | None = None,
    counted: Sequence[Sequence[Counted]] = (),
) -> None:
    """Merge a part of the shards of each variant, or for the number 0 make the statistics that all parts need.

    `measured` is that part, and `counted` what they are made of, by round.
    """
    family = open_family(base, agents, groups, output.resize)
    for name in methods:
        collect([measured] if measured else [], out / name, name)
    with merging_on(compute.merge_on) as device:
        merge_part(
            family,
            {out / name: method.resolved() for name, method in methods.items()},
            merge_options(output, compute, device),
            (number, parts),
            overlap=overlap.whole(),
            found=read_counted(counted),
            tokenizer_from=output.tokenizer,
            progress=report_progress(),
        )
