"""Reinforced Agent Merging: RAM, RAM+ and RAM+s (arXiv 2601.13572, Sec. 4 and App. E)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from rammerge.engine.blocks import Block, Update, total
from rammerge.engine.passes.overlap import OverlapCounts
from rammerge.engine.passes.statistics import Statistics
from rammerge.numerics.masks import Mask, MaskMode, mask_from
from rammerge.overlap import overlap_ratio, poor_fits
from rammerge.rules.spec import Method, Params
from rammerge.system.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

PAPER = "arXiv 2601.13572"

# Rows of the coefficients of the kernels below.
_LAMBDA, _SHARED, _CONFLICT = range(3)


class MaskParams(Params):
    """What counts as a changed element."""

    epsilon: float = Field(1e-5, ge=0, description="a change counts when it is larger than this (mask: abs)")
    mask_mode: MaskMode = Field("abs", description="abs, exact, relative or ulp")
    eta: float = Field(1e-3, ge=0, description="a change counts when larger than this share of the weight (relative)")
    ulps: int = Field(1, ge=1, description="a change counts from this many representable steps on (ulp)")

    def mask(self) -> Mask:
        """Return the mask these parameters describe."""
        return mask_from(self.mask_mode, self.epsilon, self.eta, self.ulps)


class RamParams(MaskParams):
    """RAM: the mask, and how much changes that meet are diluted."""

    shared_exponent: float = Field(
        1.0, ge=0, description="a sum of c agents' changes is divided by c to this power: 1 is the mean, 0 the sum"
    )
    conflict_exponent: float | None = Field(
        None, ge=0, description="the same where the signs of the changes disagree; by default shared_exponent"
    )

    @property
    def exponents(self) -> tuple[float, float]:
        """The exponents where signs agree, and where they disagree."""
        conflict = self.shared_exponent if self.conflict_exponent is None else self.conflict_exponent
        return self.shared_exponent, conflict


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


def _rows(params: RamParams, statistics: Statistics, tensor: str, agents: int) -> list[list[float]]:
    return [_lambdas(params, statistics, tensor, agents), *_divisors(params, agents)]


def _lambdas(params: RamParams, statistics: Statistics, tensor: str, agents: int) -> list[float]:
    if not isinstance(params, RamPlusSoftParams):
        return [1.0] * agents
    (wanted,) = _overlap_counts(params, agents)
    counts = statistics[wanted].shared_and_unique(tensor if params.scope == "tensor" else None)
    return [params.rescale(overlap_ratio(shared, unique)) for shared, unique in counts]


def _lambdas_of_the_model(params: RamParams, statistics: Statistics, agents: int) -> list[float] | None:
    by_tensor = isinstance(params, RamPlusSoftParams) and params.scope == "tensor"
    return None if by_tensor else _lambdas(params, statistics, "", agents)


def _divisors(params: RamParams, agents: int) -> list[list[float]]:
    """Return what sums of 1, 2, ... changes are divided by, where their signs agree and where they disagree."""
    return [[float(count) ** exponent for count in range(1, agents + 1)] for exponent in params.exponents]


def _by_exponents(params: RamParams) -> Callable[[Block], Update] | None:
    """Return the formula with exponents, unless they are the paper's."""
    return None if params.exponents == (1.0, 1.0) else _diluted_merge


def _ram(block: Block) -> Update:
    return Update(_mean(block, active_changes(block)))


def _reinforced_merge(block: Block) -> Update:
    """Average shared elements over the agents that changed them and rescale unique ones by their agent's lambda."""
    changed = active_changes(block)
    return _with_rescaled_uniques(block, changed, _mean(block, changed))


def _diluted_merge(block: Block) -> Update:
    """Divide sums of c changes by c to a power, and rescale unique changes by their agent's lambda."""
    changed, active = active_changes(block), total(block.masks)
    disagree = total([torch.sign(change) for change in changed]).abs() < active
    divisor = torch.where(disagree, _divisor(block, _CONFLICT, active), _divisor(block, _SHARED, active))
    return _with_rescaled_uniques(block, changed, total(changed) / divisor)


def active_changes(block: Block) -> list[Tensor]:
    """Return each agent's task vector with zeros for what the mask does not count as changed."""
    return [delta * mask for delta, mask in zip(block.deltas, block.masks, strict=True)]


def _mean(block: Block, changed: Sequence[Tensor]) -> Tensor:
    return total(changed) / torch.clamp(total(block.masks), min=1.0)


def _with_rescaled_uniques(block: Block, changed: Sequence[Tensor], combined: Tensor) -> Update:
    rescaled = total([change * block.coefficients[_LAMBDA, agent] for agent, change in enumerate(changed)])
    return Update(torch.where(total(block.masks) == 1.0, rescaled, combined), reference=combined)


def _divisor(block: Block, row: int, active: Tensor) -> Tensor:
    found = block.coefficients[row, 0]
    for count in range(2, len(block.masks) + 1):
        found = torch.where(active == float(count), block.coefficients[row, count - 1], found)
    return found


METHODS: Sequence[Method] = (
    Method(
        name="ram",
        summary="Average what several agents changed over those that changed it; keep what only one changed.",
        source=f"{PAPER}, Sec. 4.1, Alg. 1",
        params=RamParams,
        kernel=_ram,
        alternative=_by_exponents,
        coefficients=_rows,
        height=3,
        factors=_lambdas_of_the_model,
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
        alternative=_by_exponents,
        coefficients=_rows,
        height=3,
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
        alternative=_by_exponents,
        coefficients=_rows,
        height=3,
        factors=_lambdas_of_the_model,
        misfits=poor_fits,
        passes=_overlap_counts,
        improves_on="ram",
        presets={"paper": {"r": 0.1}},
        preset_sources={"paper": "App. E"},
    ),
)
