"""What a merge will take, before it is made."""

import resource
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rammerge.checkpoints.family import Family
from rammerge.checkpoints.layout import Layout, TensorSpec, plan_layout
from rammerge.engine.matrices.elementwise import update_runners
from rammerge.engine.matrices.memory import plan_matrices
from rammerge.engine.matrices.updates import with_updates
from rammerge.engine.options import MergeOptions, most_threads
from rammerge.engine.passes.measuring import passes_of, runners_for
from rammerge.engine.passes.merge_block import MergeRule
from rammerge.engine.passes.merging import merge_runners
from rammerge.engine.session import Session
from rammerge.numerics.rounding import FLOAT_DTYPES

# Files that a process has open for other reasons, such as a flow's.
_OTHER_FILES = 512


@dataclass(frozen=True, order=True)
class Forecast:
    """What a merge will take.

    Attributes:
        memory: peak resident bytes of the process.
        disk: bytes of the weights.
    """

    memory: int
    disk: int


def forecast(family: Family, rule: MergeRule, options: MergeOptions) -> Forecast:
    """Forecast a merge; see `forecast_together`."""
    if not rule.matrices:
        return forecast_together(family, [rule], options)
    with Session(family, options) as session:
        runners_for(session, rule.passes)
        update_runners(session, rule)
        before = max(plan_matrices(session, rule).forecast, session.plan.forecast)
    with Session(with_updates(family, Path()), options) as session:
        merge_runners(session, [rule])
        return Forecast(max(before, session.plan.forecast), output_layout(family, options).size)


def forecast_together(family: Family, rules: Sequence[MergeRule], options: MergeOptions) -> Forecast:
    """Forecast merges that read the inputs together.

    What the merges compute with is loaded to see how much memory it takes: torch, or compiled functions. Those that are
    not there yet begin to be compiled, so that they are ready for the merge.

    Raises:
        InputError: `options.memory` is too little, or the device is not there.
    """
    with Session(family, options, outputs=len(rules)) as session:
        merge_runners(session, rules)
        runners_for(session, passes_of(rules))
        return Forecast(session.plan.forecast, len(rules) * output_layout(family, options).size)


def most_outputs(family: Family, options: MergeOptions) -> int:
    """Return how many models can be written at the same time by the number of files that a process may open."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    inputs = sum(len(checkpoint.weight_files) for checkpoint in (family.base, *family.members.values()))
    # Each thread may be in a different shard of each model.
    return max(1, (most - inputs - _OTHER_FILES) // (most_threads(options) + 1))


def output_layout(family: Family, options: MergeOptions) -> Layout:
    """Lay out the merged model: float tensors in the output dtype, all others as the base stores them."""
    dtype = FLOAT_DTYPES[options.dtype]
    tensors = {
        name: TensorSpec(dtype if info.dtype.is_floating_point else info.dtype, info.shape)
        for name, info in family.base.tensors.items()
    }
    return plan_layout(tensors, options.shard_size)
