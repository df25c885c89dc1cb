"""RAM with TIES where changes meet: the mode `arm-ties` of the RAM authors' script."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic import Field

from rammerge.engine.blocks import Block, Rows, Update, total
from rammerge.engine.passes.magnitudes import NOT_RANKED, KeptMagnitudes
from rammerge.engine.passes.statistics import Statistics
from rammerge.overlap import poor_fits
from rammerge.rules.elementwise.ram import MaskParams, active_changes
from rammerge.rules.elementwise.sparsified import without_small
from rammerge.rules.spec import Method
from rammerge.system.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

# Rows of the kernel's coefficients.
_SCALE, _THRESHOLD = range(2)


class RamTiesParams(MaskParams):
    """RAM's mask, and TIES on shared elements."""

    drop_rate: float = Field(
        0.9, ge=0, lt=1, description="share of each agent's values dropped among a tensor's shared elements, by size"
    )
    scale: float = Field(1.0, ge=0, description="factor of what shared elements become")


def _from_smallest(share: float, ranked: int) -> int:
    """Return the rank of the int(`ranked` * `share`)-th smallest, which is kept."""
    return ranked - int(ranked * share) + 1


def _shared_changes(block: Block) -> Sequence[Tensor]:
    """Return each agent's changes at shared elements. A shared element that it did not change counts as 0."""
    shared = total(block.masks) >= 2.0
    return [torch.where(shared, change, NOT_RANKED) for change in active_changes(block)]


def _trimming(params: RamTiesParams, agents: int) -> KeptMagnitudes:
    rows = ((0.0,) * agents,)
    return KeptMagnitudes(_shared_changes, rows, params.drop_rate, True, _from_smallest, params.mask())


def _rows(params: RamTiesParams, statistics: Statistics, tensor: str, agents: int) -> Rows:
    return [[params.scale] * agents, statistics[_trimming(params, agents)][tensor]]


def _ram_ties(block: Block) -> Update:
    """Keep unique changes; of shared ones average those large enough and of the sign that has the larger mass.

    Where the masses of both signs cancel, the element is not changed.
    """
    changed = active_changes(block)
    large = [without_small(change, block.coefficients[_THRESHOLD, agent]) for agent, change in enumerate(changed)]
    elected = torch.sign(total(large))
    agreeing = [torch.relu(change * elected) for change in large]
    count = torch.clamp(total([torch.sign(change) for change in agreeing]), min=1.0)
    shared = elected * (total(agreeing) / count) * block.coefficients[_SCALE, 0]
    return Update(torch.where(total(block.masks) <= 1.0, total(changed), shared))


METHODS: Sequence[Method] = (
    Method(
        name="ram_ties",
        summary="RAM, but where changes are shared keep only each agent's largest, elect a sign, and average those.",
        source="the RAM authors' script, mode arm-ties",
        params=RamTiesParams,
        kernel=_ram_ties,
        coefficients=_rows,
        height=2,
        passes=lambda params, agents: [_trimming(params, agents)],
        misfits=poor_fits,
        presets={"authors": {"drop_rate": 0.9, "scale": 1.0}},
        preset_sources={"authors": "the numbers that their script has in its code"},
    ),
)
