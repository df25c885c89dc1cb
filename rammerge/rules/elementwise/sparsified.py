"""TIES (arXiv 2306.01708) and DARE (arXiv 2311.03099): drop elements, settle signs, then add."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AfterValidator, Field

from rammerge.engine.blocks import Block, Rows, Update, total
from rammerge.engine.passes.magnitudes import KeptMagnitudes
from rammerge.engine.passes.statistics import Statistics
from rammerge.rules.spec import Method, Params
from rammerge.system.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

# Rows of the coefficients of the kernels below.
_SCALE, _THRESHOLD, _DROP, _MEAN = range(4)


def _leaves_something(rate: float) -> float:
    # Kernels compute in float32, and divide by 1 - rate.
    if struct.unpack("f", struct.pack("f", rate))[0] == 1.0:
        raise ValueError("is 1 in float32, and then nothing is left; give at most 0.9999999")
    return rate


DropRate = Annotated[
    float,
    Field(ge=0, lt=1, description="probability with which an element is dropped"),
    AfterValidator(_leaves_something),
]


class TiesParams(Params):
    """TIES's trimming and merging."""

    density: float = Field(0.2, gt=0, le=1, description="share of each task vector that trimming keeps, by magnitude")
    scale: float = Field(1.0, ge=0, description="factor of the merged task vector")
    scope: Literal["global", "tensor"] = Field("global", description="trim over the whole model or per tensor")
    merge: Literal["mean", "sum"] = Field("mean", description="combine the agreeing values by mean or by sum")


class DareParams(Params):
    """DARE with task arithmetic."""

    drop_rate: DropRate = 0.9
    scale: float = Field(1.0, ge=0, description="factor of the sum of the dropped and rescaled task vectors")


class DareTiesParams(TiesParams):
    """DARE before TIES."""

    drop_rate: DropRate = 0.9
    density: float = Field(1.0, gt=0, le=1, description="share of each dropped task vector that trimming keeps")


def _dare_rows(params: DareParams, _: Statistics, __: str, agents: int) -> list[list[float]]:
    return [[value] * agents for value in (params.scale, 0.0, params.drop_rate)]


def _ties_rows(params: TiesParams, statistics: Statistics, tensor: str, agents: int) -> Rows:
    thresholds: Sequence[float] = [0.0] * agents
    for wanted in _trimming(params, agents):
        thresholds = statistics[wanted][tensor if params.scope == "tensor" else None]
    return _rows(params, thresholds)


def _rows(params: TiesParams, thresholds: Sequence[float]) -> tuple[tuple[float, ...], ...]:
    drop_rate = params.drop_rate if isinstance(params, DareTiesParams) else 0.0
    mean = 1.0 if params.merge == "mean" else 0.0
    agents = len(thresholds)
    return (params.scale,) * agents, tuple(thresholds), (drop_rate,) * agents, (mean,) * agents


def _trimming(params: TiesParams, agents: int) -> list[KeptMagnitudes]:
    if params.density == 1.0:
        return []
    ranked = _all_dropped if isinstance(params, DareTiesParams) else _all_deltas
    return [KeptMagnitudes(ranked, _rows(params, [0.0] * agents), params.density, params.scope == "tensor")]


def drop_and_rescale(delta: Tensor, noise: Tensor, drop_rate: Tensor) -> Tensor:
    """Drop elements where `noise` < `drop_rate` and divide the others by 1 - `drop_rate` (DARE, Eq. 1).

    Args:
        delta: float32 [n], a task vector.
        noise: float32 [n], uniform in [0, 1).
        drop_rate: 0-d float32 in [0, 1).
    """
    return delta * (noise >= drop_rate).float() / (1.0 - drop_rate)


def _dare(block: Block) -> Update:
    return Update(total(_all_dropped(block)) * block.coefficients[_SCALE, 0])


def _dropped(block: Block, agent: int) -> Tensor:
    return drop_and_rescale(block.deltas[agent], block.uniform(agent), block.coefficients[_DROP, agent])


def _all_deltas(block: Block) -> Sequence[Tensor]:
    return block.deltas


def _all_dropped(block: Block) -> Sequence[Tensor]:
    return [_dropped(block, agent) for agent in range(len(block.deltas))]


def _ties(block: Block) -> Update:
    return _elect_and_merge(block, _all_deltas(block))


def _dare_ties(block: Block) -> Update:
    return _elect_and_merge(block, _all_dropped(block))


def _elect_and_merge(block: Block, deltas: Sequence[Tensor]) -> Update:
    """Trim by magnitude, then merge the values that agree."""
    trimmed = [without_small(delta, block.coefficients[_THRESHOLD, agent]) for agent, delta in enumerate(deltas)]
    return Update(merge_agreeing(trimmed, block.coefficients[_MEAN, 0]) * block.coefficients[_SCALE, 0])


def without_small(values: Tensor, least: Tensor) -> Tensor:
    """Return the values, float32 [n], with zeros for those of a smaller magnitude than `least`."""
    return values * (values.abs() >= least).float()


def elect(vectors: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """Elect each element's sign by total mass; return it, and the magnitudes of the values that have it (TIES, Sec. 4).

    An exact tie of the masses elects +1: the official code takes the sign of the whole model's sum instead, one more
    pass for elements that cancel exactly.
    """
    elected = torch.where(total(vectors) >= 0.0, 1.0, -1.0)
    return elected, [torch.relu(values * elected) for values in vectors]


def merge_agreeing(vectors: Sequence[Tensor], use_mean: Tensor) -> Tensor:
    """Merge the values that have the elected sign (TIES, Sec. 4).

    Args:
        vectors: float32 [n] for each agent; zeros have no sign.
        use_mean: 0-d float32, 1 for the mean of the values that agree and 0 for their sum.
    """
    elected, agreeing = elect(vectors)
    count = total([torch.sign(values) for values in agreeing])
    divisor = 1.0 + use_mean * (torch.clamp(count, min=1.0) - 1.0)
    return elected * (total(agreeing) / divisor)


METHODS: Sequence[Method] = (
    Method(
        name="ties",
        summary="Keep each agent's largest changes, elect a sign for each element, and average what agrees.",
        source="arXiv 2306.01708, Sec. 4",
        params=TiesParams,
        kernel=_ties,
        coefficients=_ties_rows,
        height=4,
        passes=_trimming,
        presets={
            "paper": {"density": 0.2, "scale": 1.0},
            "fusion-bench": {"density": 0.2, "scale": 0.3, "merge": "sum"},
            "mergekit": {"density": 1.0, "scale": 1.0, "scope": "tensor"},
        },
        preset_sources={
            "paper": "Sec. 6, without tuning",
            "fusion-bench": "FusionBench's default",
            "mergekit": "mergekit's default",
        },
    ),
    Method(
        name="dare",
        summary="Drop elements of each task vector at random, rescale the rest, and add them all.",
        source="arXiv 2311.03099, Eq. 1, with task arithmetic",
        params=DareParams,
        kernel=_dare,
        coefficients=_dare_rows,
        height=3,
        presets={"paper": {"drop_rate": 0.9}, "fusion-bench": {"drop_rate": 0.5, "scale": 0.3}},
        preset_sources={"paper": "Sec. 4", "fusion-bench": "FusionBench's default"},
    ),
    Method(
        name="dare_ties",
        summary="DARE's random dropping and rescaling, then TIES.",
        source="arXiv 2311.03099, Sec. 4, with TIES",
        params=DareTiesParams,
        kernel=_dare_ties,
        coefficients=_ties_rows,
        height=4,
        passes=_trimming,
        presets={
            "paper": {"drop_rate": 0.9, "density": 1.0},
            "fusion-bench": {"drop_rate": 0.5, "density": 0.2, "scale": 0.3, "merge": "sum"},
        },
        preset_sources={"paper": "Sec. 4", "fusion-bench": "FusionBench's default"},
    ),
)
