"""What a merge will take, before it is made."""

from dataclasses import dataclass
from pathlib import Path

from rammerge.checkpoints.family import Family
from rammerge.checkpoints.layout import Layout, TensorSpec, plan_layout
from rammerge.engine.matrices.elementwise import update_runners
from rammerge.engine.matrices.memory import plan_matrices
from rammerge.engine.matrices.updates import with_updates
from rammerge.engine.options import MergeOptions
from rammerge.engine.passes.measuring import runners_for
from rammerge.engine.passes.merge_block import MergeRule
from rammerge.engine.passes.merging import merge_runners
from rammerge.engine.session import Session
from rammerge.numerics.rounding import FLOAT_DTYPES


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
    """Forecast a merge.

    What the merge computes with is loaded to see how much memory it takes: torch, or compiled functions. Those that are
    not there yet begin to be compiled, so that they are ready for the merge.

    Raises:
        InputError: `options.memory` is too little, or the device is not there.
    """
    merged, before = family, 0
    if rule.matrices:
        merged = with_updates(family, Path())
        with Session(family, options) as session:
            runners_for(session, rule.passes)
            update_runners(session, rule)
            before = max(plan_matrices(session, rule).forecast, session.plan.forecast)
    with Session(merged, options) as session:
        merge_runners(session, rule)
        if not rule.matrices:
            runners_for(session, rule.passes)
        return Forecast(max(before, session.plan.forecast), output_layout(family, options).size)


def output_layout(family: Family, options: MergeOptions) -> Layout:
    """Lay out the merged model: float tensors in the output dtype, all others as the base stores them."""
    dtype = FLOAT_DTYPES[options.dtype]
    tensors = {
        name: TensorSpec(dtype if info.dtype.is_floating_point else info.dtype, info.shape)
        for name, info in family.base.tensors.items()
    }
    return plan_layout(tensors, options.shard_size)
