"""DELLA (arXiv 2406.11617): drop elements at random, the smaller ones of each row more often, then add."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal, Self

from pydantic import Field, model_validator

from rammerge.engine.blocks import Block, Rows, Update, total
from rammerge.engine.passes.statistics import Statistics
from rammerge.rules.elementwise.sparsified import merge_agreeing
from rammerge.rules.spec import Method, Params
from rammerge.system.lazy import torch

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
    """Return p = 1 - drop_rate + window * (place - 1/2), float32 [n].

    An element's place in its row is 0 for the smallest magnitude and 1 for the largest; of equal ones the first is
    smaller. The one element of a row that has no others is in the middle.
    """
    drop_rate, window = block.coefficients[_DROP, agent], block.coefficients[_WINDOW, agent]
    if block.row == 1:
        return torch.ones_like(block.base) - drop_rate
    magnitudes = block.deltas[agent].abs().view(-1, block.row)
    order = torch.argsort(magnitudes, dim=1, stable=True)
    rank = torch.empty_like(magnitudes).scatter_(
        1, order, torch.arange(block.row, dtype=torch.float32, device=order.device).expand_as(magnitudes)
    )
    # By a tensor: instead of dividing by a number, torch multiplies by its reciprocal on a GPU, which rounds otherwise.
    place = rank / torch.full_like(window, block.row - 1)
    return (1.0 - drop_rate + window * (place - 0.5)).view(-1)


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
