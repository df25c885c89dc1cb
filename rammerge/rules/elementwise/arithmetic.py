"""Weight averaging (arXiv 2203.05482) and task arithmetic (arXiv 2212.04089)."""

from collections.abc import Sequence

from pydantic import Field

from rammerge.engine.blocks import Block, Update, total
from rammerge.engine.passes.statistics import Statistics
from rammerge.rules.spec import Method, Params


class AverageParams(Params):
    """Averaging has no parameters."""


class LinearParams(Params):
    """The weighted mean has no parameters besides the agents' weights."""


class TaskArithmeticParams(Params):
    """The scale of the sum of task vectors."""

    scale: float = Field(1.0, ge=0, description="factor of the sum of the agents' task vectors")


def _equal_weights(_: AverageParams | LinearParams, __: Statistics, ___: str, agents: int) -> list[list[float]]:
    return [[1.0 / agents] * agents]


def _scale(params: TaskArithmeticParams, _: Statistics, __: str, agents: int) -> list[list[float]]:
    return [[params.scale] * agents]


def _scaled_sum(block: Block) -> Update:
    # All agents have the same factor. Applied to the sum, it rounds only once.
    return Update(total(block.deltas) * block.coefficients[0, 0])


def weighted_sum(block: Block) -> Update:
    """Add the task vectors, each by its own factor."""
    return Update(total([delta * block.coefficients[0, agent] for agent, delta in enumerate(block.deltas)]))


METHODS: Sequence[Method] = (
    Method(
        name="average",
        summary="The mean of the agents' weights.",
        source="arXiv 2203.05482",
        params=AverageParams,
        kernel=_scaled_sum,
        coefficients=_equal_weights,
        refuses_weights="it is the plain mean; use linear, the mean by weights",
    ),
    Method(
        name="linear",
        summary="The weighted mean of the agents' weights; without weights of agents, their average.",
        source="arXiv 2203.05482, with weights",
        params=LinearParams,
        kernel=_scaled_sum,
        coefficients=_equal_weights,
        shares_weights=True,
    ),
    Method(
        name="task_arithmetic",
        summary="The base plus a scaled sum of all task vectors.",
        source="arXiv 2212.04089",
        params=TaskArithmeticParams,
        kernel=_scaled_sum,
        coefficients=_scale,
        presets={"fusion-bench": {"scale": 0.3}, "mergekit": {"scale": 1.0}},
        preset_sources={"fusion-bench": "FusionBench's default", "mergekit": "mergekit's default"},
    ),
)
