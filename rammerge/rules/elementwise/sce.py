"""SCE (arXiv 2408.07990): select what varies between agents, weigh agents by their energy, erase minority signs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pydantic import Field

from rammerge.engine.blocks import Block, Rows, Update, total
from rammerge.engine.passes.magnitudes import NOT_RANKED, KeptMagnitudes
from rammerge.engine.passes.products import InnerProducts
from rammerge.engine.passes.squares import SelectedSquares
from rammerge.engine.passes.statistics import Pass, Statistics
from rammerge.rules.elementwise.sparsified import elect
from rammerge.rules.spec import Method, Params
from rammerge.system.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

# Rows of the kernel's coefficients. The selection comes first, where the pass that squares has it too.
_LEAST, _WEIGHT, _SCALE = range(3)


class SceParams(Params):
    """What SCE selects."""

    select: float = Field(
        1.0,
        gt=0,
        le=1,
        description="share merged of a tensor's elements that differ between agents, the most varying",
    )
    scale: float = Field(1.0, ge=0, description="factor of the merged task vector")


def _share(share: float, ranked: int) -> int:
    return int(share * ranked)


def _selection(params: SceParams, agents: int) -> KeptMagnitudes:
    rows = ((0.0,) * agents,)
    return KeptMagnitudes(_ranked_variance, rows, params.select, by_tensor=True, rank=_share, ranks_one=True)


def _squares(params: SceParams, agents: int) -> SelectedSquares:
    return SelectedSquares(_selected, _selection(params, agents))


def _passes(params: SceParams, agents: int) -> Sequence[Pass[Any]]:
    if params.select == 1.0:
        return [InnerProducts()]
    return [_selection(params, agents), _squares(params, agents)]


def _rows(params: SceParams, statistics: Statistics, tensor: str, agents: int) -> Rows:
    if params.select == 1.0:
        least, energies = 0.0, [row[at] for at, row in enumerate(statistics[InnerProducts()].matrix(tensor))]
    else:
        least = statistics[_selection(params, agents)][tensor][0]
        energies = statistics[_squares(params, agents)][tensor]
    return [[least] * agents, _weights(energies), [params.scale] * agents]


def _weights(energies: Sequence[float]) -> list[float]:
    """Return each agent's share of the energy; equal shares only if there is none."""
    # mergekit gives equal shares where the mean squares add up to less than 1e-6, as those of RL agents mostly do.
    whole = math.fsum(energies)
    return [energy / whole for energy in energies] if whole else [1.0 / len(energies)] * len(energies)


def _variance(block: Block) -> Tensor:
    """Return the variance of each element over the agents."""
    share = 1.0 / len(block.deltas)
    mean = total(block.deltas) * share
    return total([(delta - mean) * (delta - mean) for delta in block.deltas]) * share


def _ranked_variance(block: Block) -> Sequence[Tensor]:
    variance = _variance(block)
    return [torch.where(variance > 0.0, variance, NOT_RANKED)]


def _selected(block: Block) -> list[Tensor]:
    kept = (_variance(block) >= block.coefficients[_LEAST, 0]).float()
    return [delta * kept for delta in block.deltas]


def _sce(block: Block) -> Update:
    """Average, by weights, the selected changes that have the sign of their sum."""
    elected, agreeing = elect(_selected(block))
    weights = [block.coefficients[_WEIGHT, agent] for agent in range(len(agreeing))]
    summed = total([delta * weight for delta, weight in zip(agreeing, weights, strict=True)])
    shares = total([torch.sign(delta) * weight for delta, weight in zip(agreeing, weights, strict=True)])
    return Update(elected * (summed / torch.where(shares > 0.0, shares, 1.0)) * block.coefficients[_SCALE, 0])


METHODS: Sequence[Method] = (
    Method(
        name="sce",
        summary="Average the changes that agree in sign, by weights that follow how much each agent changed a tensor.",
        source="arXiv 2408.07990",
        params=SceParams,
        kernel=_sce,
        coefficients=_rows,
        height=3,
        passes=_passes,
        presets={"mergekit": {"select": 1.0}},
        preset_sources={"mergekit": "mergekit's default; its weights of agents are equal if changes are small"},
    ),
)
