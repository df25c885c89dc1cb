"""Reinforced Agent Merging: RAM, RAM+ and RAM+s (arXiv 2601.13572, Sec. 4 and App. E)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from rammerge.engine.blocks import Block, Update
from rammerge.engine.passes.overlap import OverlapCounts
from rammerge.engine.passes.statistics import Statistics
from rammerge.numerics.masks import Mask, MaskMode, mask_from
from rammerge.overlap import overlap_ratio, poor_fits
from rammerge.rules.spec import Method, Params
from rammerge.system.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

PAPER = "arXiv 2601.13572"


class RamParams(Params):
    """RAM's parameters, which only define changed elements."""

    epsilon: float = Field(1e-5, ge=0, description="a change counts when it is larger than this (mask: abs)")
    mask_mode: MaskMode = Field("abs", description="abs, exact, relative or ulp")
    eta: float = Field(1e-3, ge=0, description="a change counts when larger than this share of the weight (relative)")
    ulps: int = Field(1, ge=1, description="a change counts from this many representable steps on (ulp)")

    def mask(self) -> Mask:
        """Return the mask these parameters describe."""
        return mask_from(self.mask_mode, self.epsilon, self.eta, self.ulps)


class RamPlusSoftParams(RamParams):
    """RAM+s: RAM and the strength of the rescaling."""

    r: float = Field(0.1, ge=0, description="strength of the rescaling of unique elements")
    scope: Literal["global", "tensor"] = Field("global", description="count overlap over the model or per tensor")

    def rescale(self, rho: float) -> float:
        """Return lambda for an overlap ratio."""
        return soft_rescale(rho, self.r)


class RamPlusParams(RamPlusSoftParams):
    """RAM+: RAM+s and the bound of the overlap ratio."""

    alpha: float = Field(2.0, ge=0, description="upper bound of the overlap ratio rho")

    def rescale(self, rho: float) -> float:
        """Return lambda for an overlap ratio."""
        return clipped_rescale(rho, self.r, self.alpha)


def clipped_rescale(rho: float, r: float, alpha: float) -> float:
    """Return lambda = 1 + r * clip(rho, 0, alpha) (RAM+, paper Sec. 4.2)."""
    return 1.0 + r * min(rho, alpha)


def soft_rescale(rho: float, r: float) -> float:
    """Return lambda = 1 + r * rho / (1 + rho) (RAM+s, paper App. E), 1 plus r times the share of shared elements."""
    return 1.0 + r * (1.0 if math.isinf(rho) else rho / (1.0 + rho))


def _overlap_counts(params: RamPlusSoftParams, _: int) -> list[OverlapCounts]:
    return [OverlapCounts(params.mask())]


def _lambdas(params: RamPlusSoftParams, statistics: Statistics, tensor: str, agents: int) -> list[list[float]]:
    (wanted,) = _overlap_counts(params, agents)
    counts = statistics[wanted].shared_and_unique(tensor if params.scope == "tensor" else None)
    return [[params.rescale(overlap_ratio(shared, unique)) for shared, unique in counts]]


def _lambdas_of_the_model(params: RamPlusSoftParams, statistics: Statistics, agents: int) -> list[float] | None:
    return None if params.scope == "tensor" else _lambdas(params, statistics, "", agents)[0]


def _no_rescaling(_: RamParams, __: Statistics, agents: int) -> list[float]:
    return [1.0] * agents


def _reinforced_merge(block: Block) -> Update:
    """Average shared elements over the agents that changed them and rescale unique ones by their agent's lambda."""
    active = block.masks[0]
    total = block.deltas[0] * block.masks[0]
    rescaled = total * block.coefficients[0, 0]
    for agent in range(1, len(block.deltas)):
        change = block.deltas[agent] * block.masks[agent]
        active = active + block.masks[agent]
        total = total + change
        rescaled = rescaled + change * block.coefficients[0, agent]
    mean = total / torch.clamp(active, min=1.0)
    return Update(torch.where(active == 1.0, rescaled, mean), reference=mean)


def _ram(block: Block) -> Update:
    return Update(_mean_of_changes(block))


def _mean_of_changes(block: Block) -> Tensor:
    active, total = block.masks[0], block.deltas[0] * block.masks[0]
    for mask, delta in zip(block.masks[1:], block.deltas[1:], strict=True):
        active = active + mask
        total = total + delta * mask
    return total / torch.clamp(active, min=1.0)


METHODS: Sequence[Method] = (
    Method(
        name="ram",
        summary="Average what several agents changed over those that changed it; keep what only one changed.",
        source=f"{PAPER}, Sec. 4.1, Alg. 1",
        params=RamParams,
        kernel=_ram,
        factors=_no_rescaling,
        misfits=poor_fits,
        presets={"paper": {"epsilon": 1e-5}},
        preset_sources={"paper": "Sec. 5.1"},
    ),
    Method(
        name="ram_plus",
        summary="RAM with each agent's unique changes amplified by 1 + r * clip(shared / unique, 0, alpha).",
        source=f"{PAPER}, Sec. 4.2, Alg. 1",
        params=RamPlusParams,
        kernel=_reinforced_merge,
        coefficients=_lambdas,
        factors=_lambdas_of_the_model,
        misfits=poor_fits,
        passes=_overlap_counts,
        improves_on="ram",
        presets={
            "paper": {"r": 0.1, "alpha": 2.0, "scope": "global"},
            "authors-cli": {"r": 0.05, "alpha": 1.0, "scope": "global"},
            "authors-readme": {"r": 0.2, "alpha": 1.0, "scope": "global"},
            "mergekit": {"r": 0.1, "alpha": 0.2, "scope": "tensor"},
        },
        preset_sources={
            "paper": "Sec. 5.1",
            "authors-cli": "defaults of the authors' script (rescale factor 1.05)",
            "authors-readme": "the command in the authors' README (rescale factor 1.2)",
            "mergekit": "defaults of mergekit's ramplus_tl",
        },
    ),
    Method(
        name="ram_plus_soft",
        summary="RAM+ with the saturating factor 1 + r * rho / (1 + rho).",
        source=f"{PAPER}, App. E",
        params=RamPlusSoftParams,
        kernel=_reinforced_merge,
        coefficients=_lambdas,
        factors=_lambdas_of_the_model,
        misfits=poor_fits,
        passes=_overlap_counts,
        improves_on="ram",
        presets={"paper": {"r": 0.1}},
        preset_sources={"paper": "App. E"},
    ),
)
