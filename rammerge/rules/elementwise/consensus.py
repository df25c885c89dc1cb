"""Consensus merging with TALL masks (arXiv 2405.07813): drop what only few agents find important."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic import Field

from rammerge.engine.blocks import Block, Rows, Update, total
from rammerge.engine.passes.statistics import Statistics
from rammerge.rules.spec import Method, Params
from rammerge.system.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

# Rows of the kernel's coefficients.
_SCALE, _SELECTIVITY, _AGREEING = range(3)


class ConsensusParams(Params):
    """When an agent finds an element important, and how many have to."""

    selectivity: float = Field(
        0.4, ge=0, description="an element is important to an agent whose change exceeds this times the others' sum"
    )
    agreeing: int = Field(2, ge=1, description="how many agents must find an element important; at most all of them")
    scale: float = Field(1.0, ge=0, description="factor of the sum of the task vectors where they do")


def _rows(params: ConsensusParams, _: Statistics, __: str, agents: int) -> Rows:
    return [[value] * agents for value in (params.scale, params.selectivity, float(min(params.agreeing, agents)))]


def _consensus(block: Block) -> Update:
    """Keep the sum where enough agents have |tau_t| > selectivity * |sum - tau_t| ."""
    added = total(block.deltas)
    important = [_is_important(block, added, delta) for delta in block.deltas]
    agreed = (total(important) >= block.coefficients[_AGREEING, 0]).float()
    return Update(added * agreed * block.coefficients[_SCALE, 0])


def _is_important(block: Block, added: Tensor, delta: Tensor) -> Tensor:
    return (delta.abs() > block.coefficients[_SELECTIVITY, 0] * torch.abs(added - delta)).float()


METHODS: Sequence[Method] = (
    Method(
        name="consensus",
        summary="Add all task vectors, but only in elements that several agents find important.",
        source="arXiv 2405.07813",
        params=ConsensusParams,
        kernel=_consensus,
        coefficients=_rows,
        height=3,
        presets={"fusion-bench": {"selectivity": 0.6}},
        preset_sources={"fusion-bench": "FusionBench's default"},
    ),
)
