"""What the spectral methods share: the scale, and the mean for tensors that are not matrices."""

from __future__ import annotations

from pydantic import Field

from rammerge.engine.passes.statistics import Statistics
from rammerge.rules.spec import Params

# Why no step follows some of them.
FLAT = "all singular values of its result are equal, so it has no directions of its own; use task_arithmetic or tsv_m"

# What some of them make of task vectors of low rank, which are of full rank as soon as weights are stored rounded.
ROUNDING = (
    "the other directions that it keeps are rounding, which is most of its result in bfloat16; give such agents in "
    "float32 and merge them with a base in float32, or use task_arithmetic"
)


class SpectralParams(Params):
    """The scale of the merged task vector."""

    scale: float = Field(1.0, ge=0, description="factor of the merged task vector")


def scaled_mean(params: SpectralParams, _: Statistics, __: str, agents: int) -> list[list[float]]:
    """Return the factors of the scaled mean, which merges biases, norms and other tensors that are not matrices."""
    return [[params.scale / agents] * agents]
