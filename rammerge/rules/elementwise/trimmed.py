"""Keep some magnitudes of each task vector, then add: Breadcrumbs, Localize-and-Stitch, DARE by magnitude."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Self

from pydantic import Field, model_validator

from rammerge.engine.blocks import Block, Rows, Update, total
from rammerge.engine.passes.kept_range import KeptRange
from rammerge.engine.passes.magnitudes import KeptMagnitudes, all_but, at_least
from rammerge.engine.passes.statistics import Statistics
from rammerge.rules.elementwise.sparsified import without_small
from rammerge.rules.spec import Method, Params
from rammerge.system.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

# Rows of the coefficients of the kernels below.
_SCALE, _LEAST, _MOST = range(3)


class BreadcrumbsParams(Params):
    """What Breadcrumbs drops of each tensor."""

    drop_smallest: float = Field(0.85, ge=0, lt=1, description="share of each tensor's changes dropped as too small")
    drop_largest: float = Field(0.006, ge=0, lt=1, description="share of each tensor's changes dropped as outliers")
    scale: float = Field(1.0, ge=0, description="factor of the sum of what is left")

    @model_validator(mode="after")
    def _something_is_left(self) -> Self:
        if self.drop_smallest + self.drop_largest >= 1:
            raise ValueError("drop_smallest and drop_largest together leave nothing; make their sum less than 1")
        return self


class LocalizeAndStitchParams(Params):
    """What each agent's region is."""

    density: float = Field(0.05, gt=0, le=1, description="share of each task vector that is kept, by magnitude")
    scale: float = Field(1.0, ge=0, description="factor of the merged task vector")


class DareMagnitudeParams(Params):
    """DARE's dropping by magnitude instead of by chance."""

    drop_rate: float = Field(0.5, ge=0, lt=1, description="share of each tensor's changes dropped, the smallest")
    rescale: bool = Field(False, description="divide what is left by 1 - drop_rate")
    scale: float = Field(1.0, ge=0, description="factor of the sum of what is left")


def _all_deltas(block: Block) -> Sequence[Tensor]:
    return block.deltas


def _least(params: BreadcrumbsParams | DareMagnitudeParams, agents: int) -> KeptMagnitudes:
    dropped = params.drop_smallest if isinstance(params, BreadcrumbsParams) else params.drop_rate
    return KeptMagnitudes(_all_deltas, ((0.0,) * agents,), dropped, by_tensor=True, rank=all_but)


def _range(params: BreadcrumbsParams, agents: int) -> KeptRange:
    most = KeptMagnitudes(_all_deltas, ((0.0,) * agents,), params.drop_largest, by_tensor=True, rank=at_least)
    return KeptRange(_least(params, agents), most)


def _region(params: LocalizeAndStitchParams, agents: int) -> KeptMagnitudes:
    return KeptMagnitudes(_all_deltas, ((0.0,) * agents,), params.density, by_tensor=False, rank=at_least)


def _breadcrumbs_rows(params: BreadcrumbsParams, statistics: Statistics, tensor: str, agents: int) -> Rows:
    return [[params.scale] * agents, *statistics[_range(params, agents)][tensor]]


def _localize_rows(params: LocalizeAndStitchParams, statistics: Statistics, _: str, agents: int) -> Rows:
    return [[params.scale] * agents, statistics[_region(params, agents)][None]]


def _dare_rows(params: DareMagnitudeParams, statistics: Statistics, tensor: str, agents: int) -> Rows:
    scale = params.scale / (1.0 - params.drop_rate) if params.rescale else params.scale
    return [[scale] * agents, statistics[_least(params, agents)][tensor]]


def _kept(block: Block) -> list[Tensor]:
    return [without_small(delta, block.coefficients[_LEAST, agent]) for agent, delta in enumerate(block.deltas)]


def _added(block: Block) -> Update:
    """Add what is left of each task vector without its small changes."""
    return Update(total(_kept(block)) * block.coefficients[_SCALE, 0])


def _breadcrumbs(block: Block) -> Update:
    kept = [
        values * (delta.abs() <= block.coefficients[_MOST, agent]).float()
        for agent, (values, delta) in enumerate(zip(_kept(block), block.deltas, strict=True))
    ]
    return Update(total(kept) * block.coefficients[_SCALE, 0])


def _stitched(block: Block) -> Update:
    """Average what is left of each task vector over the agents in whose region an element is."""
    kept = _kept(block)
    regions = total([torch.sign(values.abs()) for values in kept])
    return Update(total(kept) / torch.clamp(regions, min=1.0) * block.coefficients[_SCALE, 0])


METHODS: Sequence[Method] = (
    Method(
        name="breadcrumbs",
        summary="Drop the smallest changes and the outliers of each tensor, and add the rest.",
        source="arXiv 2312.06795",
        params=BreadcrumbsParams,
        kernel=_breadcrumbs,
        coefficients=_breadcrumbs_rows,
        height=3,
        passes=lambda params, agents: [_range(params, agents)],
        presets={"authors": {"drop_smallest": 0.85, "drop_largest": 0.006, "scale": 0.2}},
        preset_sources={"authors": "where the authors' search over CLIP models starts"},
    ),
    Method(
        name="localize_and_stitch",
        summary="Keep each agent's largest changes, and average them where they meet (the variant without data).",
        source="arXiv 2408.13656",
        params=LocalizeAndStitchParams,
        kernel=_stitched,
        coefficients=_localize_rows,
        height=2,
        passes=lambda params, agents: [_region(params, agents)],
        presets={"paper": {"density": 0.05}, "authors-vision": {"density": 0.1}},
        preset_sources={"paper": "language models", "authors-vision": "the authors' script for CLIP models"},
    ),
    Method(
        name="dare_magnitude",
        summary="Drop the smallest changes of each tensor, and add the rest: DARE by magnitude instead of by chance.",
        source="the magnitude masks of MergeLM, the code of arXiv 2311.03099",
        params=DareMagnitudeParams,
        kernel=_added,
        coefficients=_dare_rows,
        height=2,
        passes=lambda params, agents: [_least(params, agents)],
    ),
)
