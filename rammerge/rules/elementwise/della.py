"""DELLA (arXiv 2406.11617): drop elements at random, the smaller ones of each row more often, then add."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal, Self

from pydantic import Field, model_validator

from rammerge.engine.blocks import Block, Rows, Update, total
from rammerge.engine.passes.statistics import Statistics
from rammerge.rules.elementwise.sparsified import merge_agreeing
from rammerge.rules.spec import Method, Params

if TYPE_CHECKING:
    from torch import Tensor

# Rows of the kernels' coefficients.
_SCALE, _DROP, _WINDOW, _ONE = range(4)


class DellaParams(Params):
    """How often elements are dropped, and how what is left is merged."""

    drop_rate: float = Field(0.3, ge=0, lt=1, description="mean probability with which an element is dropped")
    window: float = Field(
        0.14, ge=0, lt=1, description="how much more often a row's smallest element is dropped than its largest"
    )
    scale: float = Field(1.0, ge=0, description="factor of the merged task vector")
    merge: Literal["ties", "sum"] = Field("ties", description="elect signs and average what agrees, or add everything")

    @model_validator(mode="after")
    def _probabilities_exist(self) -> Self:
        lowest, highest = self.drop_rate - self.window / 2, self.drop_rate + self.window / 2
        if lowest < 0 or highest >= 1:
            raise ValueError(
                f"drop_rate and window make probabilities from {lowest:g} to {highest:g}; keep these from 0 to below 1"
            )
        return self


def _rows(params: DellaParams, _: Statistics, __: str, agents: int) -> Rows:
    return [[value] * agents for value in (params.scale, params.drop_rate, params.window, 1.0)]


def _sum_instead(params: DellaParams) -> Callable[[Block], Update] | None:
    return _added if params.merge == "sum" else None


def _agreeing(block: Block) -> Update:
    return Update(merge_agreeing(_all_sampled(block), block.coefficients[_ONE, 0]) * block.coefficients[_SCALE, 0])


def _added(block: Block) -> Update:
    return Update(total(_all_sampled(block)) * block.coefficients[_SCALE, 0])


def _all_sampled(block: Block) -> list[Tensor]:
    return [_sampled(block, agent) for agent in range(len(block.deltas))]


def _sampled(block: Block, agent: int) -> Tensor:
    """Keep each element with its probability p and divide it by p, so that the expectation is the task vector."""
    keep = _keep_probability(block, agent)
    return block.deltas[agent] * (block.uniform(agent) < keep).float() / keep


def _keep_probability(block: Block, agent: int) -> Tensor:
    """Return p = 1 - drop_rate + window * (place - 1/2), float32 [n], by the place of its magnitude in its row."""
    drop_rate, window = block.coefficients[_DROP, agent], block.coefficients[_WINDOW, agent]
    return 1.0 - drop_rate + window * (block.places(block.deltas[agent].abs()) - 0.5)


METHODS: Sequence[Method] = (
    Method(
        name="della",
        summary="Drop elements at random, the smaller ones of each row more often; rescale, and merge like TIES.",
        source="arXiv 2406.11617",
        params=DellaParams,
        kernel=_agreeing,
        alternative=_sum_instead,
        coefficients=_rows,
        height=4,
        by_rows=True,
        presets={"authors-readme": {"drop_rate": 0.3, "window": 0.14, "scale": 1.1}},
        preset_sources={"authors-readme": "the command in the authors' README"},
    ),
)
