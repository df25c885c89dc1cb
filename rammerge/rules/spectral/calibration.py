"""Singular Value Calibration (arXiv 2602.05536): each direction of a merge gets back what its agents gave it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from rammerge.rules.spec import Params
from rammerge.rules.spectral.algebra import spectrum
from rammerge.rules.spectral.steps import Merged, ThenStep
from rammerge.system.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

# An agent whose part in a direction is a smaller share of its mean part has none, and says nothing of its strength.
_NO_PART = 1e-12


class SvcParams(Params):
    """The least strength of an agent in a direction."""

    alpha: float = Field(0.1, gt=0, description="least strength of an agent in a direction, as a share of its own")


def _calibrated(params: SvcParams, merged: Merged) -> Tensor:
    """Return the multiplier of a merge D that calibrates its singular values (Eq. 8).

    With u_r the output directions of D and s_rt = <u_r^T D, u_r^T tau_t> / |u_r^T tau_t|^2, direction r is multiplied
    by N / sum of max(alpha, s_rt).
    """
    values, vectors = spectrum(merged.own)
    strengths, live = torch.zeros_like(values), 0
    for with_agent, agent in zip(merged.with_agents, merged.agents, strict=True):
        size = float(agent.trace())
        if size <= 0:
            continue
        live += 1
        both = (vectors * (with_agent @ vectors)).sum(0)
        if merged.view.transposed:
            # The output is the long side, and `vectors` are input directions v_r: u_r is D v_r / s_r.
            alone = (with_agent.T @ vectors).square().sum(0) / values.square()
        else:
            alone = (vectors * (agent @ vectors)).sum(0)
        least = _NO_PART * size / merged.view.short
        share = torch.where(alone > least, both / alone.clamp(min=least), params.alpha)
        strengths += share.clamp(min=params.alpha)
    return (vectors * (live / strengths)) @ vectors.T


SVC = ThenStep(
    name="svc",
    summary="Give each direction of a matrix back the strength that its agents gave it.",
    source="arXiv 2602.05536, Eq. 8",
    params=SvcParams,
    multiplier=_calibrated,
    matrices=3,
    undone={"scale": "`svc` takes the scale of matrices back, unless its alpha holds: vary alpha instead of the scale"},
)
