"""Singular Value Calibration (arXiv 2602.05536): each direction of a merge gets back what its agents gave it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from pydantic import Field

from rammerge.engine.matrices.method import Grams, MatrixMethod, added
from rammerge.engine.matrices.view import MatrixView
from rammerge.engine.passes.statistics import Statistics
from rammerge.rules.elementwise.arithmetic import weighted_sum
from rammerge.rules.spec import Method, Params
from rammerge.rules.spectral.algebra import spectrum
from rammerge.system.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

Solve = Callable[[Grams], Sequence["Tensor"]]

# An agent whose part in a direction is a smaller share of its mean part has none, and says nothing of its strength.
_NO_PART = 1e-12


class SvcParams(Params):
    """Task arithmetic's scale, and the least strength of an agent in a direction."""

    scale: float = Field(1.0, ge=0, description="factor of the sum, which calibration takes back unless alpha holds")
    alpha: float = Field(0.1, gt=0, description="least strength of an agent in a direction, as a share of its own")


def calibrated(solve: Solve, of_sum: bool, alpha: float, grams: Grams) -> list[Tensor]:
    """Return the multipliers of a merge D by `solve` whose singular values are calibrated (Eq. 8).

    With u_r the output directions of D and s_rt = <u_r^T D, u_r^T tau_t> / |u_r^T tau_t|^2, direction r is multiplied
    by N / sum of max(alpha, s_rt). D is a sum of multiplier times task vector, so the inner products tell all.
    """
    agents = range(len(grams))
    found = list(solve(Grams(grams.view, {(0, 0): grams.total()}) if of_sum else grams))
    multipliers = found * len(grams) if of_sum else found
    live = grams.live
    with_agents = [added([multipliers[i] @ grams[i, agent] for i in agents]) for agent in agents]  # D tau_t^T
    own = added([part @ multiplier.T for part, multiplier in zip(with_agents, multipliers, strict=True)])
    values, vectors = spectrum((own + own.T) / 2)
    strengths = torch.zeros_like(values)
    for agent in live:
        both = (vectors * (with_agents[agent] @ vectors)).sum(0)
        alone = _part(grams, agent, with_agents[agent], values, vectors)
        least = _NO_PART * float(grams[agent, agent].trace()) / grams.view.short
        share = torch.where(alone > least, both / alone.clamp(min=least), alpha)
        strengths += share.clamp(min=alpha)
    factor = (vectors * (len(live) / strengths)) @ vectors.T
    return [factor @ multiplier for multiplier in multipliers]


def _part(grams: Grams, agent: int, with_agent: Tensor, values: Tensor, vectors: Tensor) -> Tensor:
    """Return |u_r^T tau_t|^2 for each output direction u_r of D."""
    if grams.view.transposed:
        # The output is the long side, and `vectors` are input directions v_r: u_r is D v_r / s_r.
        return (with_agent.T @ vectors).square().sum(0) / values.square()
    return (vectors * (grams[agent, agent] @ vectors)).sum(0)


def calibrate(method: MatrixMethod, alpha: float | None) -> MatrixMethod:
    """Return the method with its result calibrated, unless alpha is None."""
    if alpha is None:
        return method

    def matrices(agents: int, view: MatrixView) -> float:
        return max(method.matrices(agents, view), agents * (agents + 1) / 2 + 2 * agents + 7)

    solve = partial(calibrated, method.solve, method.of_sum, alpha)
    return MatrixMethod(solve, of_sum=False, matrices=matrices, takes=method.takes)


def _scaled(scale: float, grams: Grams) -> list[Tensor]:
    """Return the multiplier of task arithmetic."""
    return [scale * torch.eye(grams.view.short).to(grams[0, 0])]


def _svc(params: SvcParams) -> MatrixMethod:
    plain = MatrixMethod(partial(_scaled, params.scale), of_sum=True, matrices=lambda *_: 0)
    return calibrate(plain, params.alpha)


def _rows(params: SvcParams, _: Statistics, __: str, agents: int) -> list[list[float]]:
    return [[params.scale] * agents]


METHODS: Sequence[Method] = (
    Method(
        name="svc",
        summary="Task arithmetic with each direction of a matrix given back the strength that its agents gave it.",
        source="arXiv 2602.05536",
        params=SvcParams,
        kernel=weighted_sum,
        coefficients=_rows,
        matrices=_svc,
        presets={"fusion-bench": {"scale": 0.3, "alpha": 0.1}},
        preset_sources={"fusion-bench": "FusionBench's settings for task arithmetic"},
    ),
)
