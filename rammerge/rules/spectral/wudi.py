"""WUDI: the merged task vector that disturbs each agent least on its own inputs (arXiv 2503.08099)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from pydantic import Field

from rammerge.engine.matrices.method import Grams, MatrixMethod, OfBlock, added
from rammerge.engine.matrices.view import MatrixView
from rammerge.errors import InputError
from rammerge.rules.elementwise.arithmetic import weighted_sum
from rammerge.rules.spec import Method
from rammerge.rules.spectral.parameters import SpectralParams, scaled_mean
from rammerge.system.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor


# Adam's own constants.
_BETAS, _EPSILON = (0.9, 0.999), 1e-8


class WudiParams(SpectralParams):
    """The ridge."""

    ridge: float = Field(1e-3, gt=0, description="ridge, relative to the mean eigenvalue of the agents' inputs")


class WudiAdamParams(SpectralParams):
    """The published descent."""

    learning_rate: float = Field(0.01, gt=0, description="step of Adam, relative to the task vectors' root mean square")
    steps: int = Field(300, ge=1, description="number of steps")


def _least_disturbance(scale: float, ridge: float, grams: Grams) -> list[Tensor]:
    """Return the multipliers of the M with the least sum of |(M - tau_t) tau_t^T|^2 / |tau_t|^2 (Eq. 11).

    With G_t = tau_t^T tau_t / |tau_t|^2, which stands for the layer's inputs in training, M is (sum of tau_t G_t) times
    (sum of G_t + ridge)^-1. Without the ridge the loss is zero where the task vectors together have no more rows than
    columns, and M grows without bound as rows become parallel.
    """
    sizes = [float(grams[agent, agent].trace()) for agent in range(len(grams))]
    live = grams.live
    solve = _from_inputs if grams.view.transposed else _from_outputs
    try:
        solved = iter(solve(grams, live, sizes, ridge * len(live) / grams.view.columns) if live else ())
    except torch.linalg.LinAlgError as error:  # type: ignore[attr-defined]  # torch hides it from type checkers
        raise InputError(
            f"wudi has no solution for '{grams.view.name}' in float64 with the ridge {ridge:g}, because rows of the "
            "task vectors are nearly parallel; raise the parameter ridge"
        ) from error
    return [next(solved).mul_(scale) if size > 0 else torch.zeros_like(grams[0, 0]) for size in sizes]


def _from_inputs(grams: Grams, live: Sequence[int], sizes: Sequence[float], ridge: float) -> list[Tensor]:
    """Solve for the inputs, if they are the short side."""
    total = added(grams[agent, agent] / sizes[agent] for agent in live)
    total.diagonal().add_(ridge)
    factor = torch.linalg.cholesky(total)
    return [torch.cholesky_solve(grams[agent, agent] / sizes[agent], factor) for agent in live]


def _from_outputs(grams: Grams, live: Sequence[int], sizes: Sequence[float], ridge: float) -> list[Tensor]:
    """Solve for the outputs of all agents together: the same M, since (sum of G_t + c)^-1 T = T (T T^T + c)^-1.

    T is the matrix of all tau_t / |tau_t|, one below the other. T T^T + c is factored block by block in the place of
    the inner products.
    """
    blocks, wanted = grams.pairs, {agent: grams[agent, agent] / sizes[agent] ** 0.5 for agent in live}
    for (i, j), block in list(blocks.items()):
        if sizes[i] and sizes[j]:
            blocks[i, j] = block / (sizes[i] * sizes[j]) ** 0.5
    for agent in live:
        blocks[agent, agent].diagonal().add_(ridge)
    _factor(blocks, live)
    for at, k in enumerate(live):  # forwards by the transposed factor, then back by the factor
        for i in live[:at]:
            wanted[k].addmm_(blocks[i, k].T, wanted[i], alpha=-1.0)
        wanted[k] = torch.linalg.solve_triangular(blocks[k, k].T, wanted[k], upper=False)
    for at, k in reversed(list(enumerate(live))):
        for j in live[at + 1 :]:
            wanted[k].addmm_(blocks[k, j], wanted[j], alpha=-1.0)
        wanted[k] = torch.linalg.solve_triangular(blocks[k, k], wanted[k], upper=True)
    return [wanted[agent].T / sizes[agent] ** 0.5 for agent in live]


def _factor(blocks: dict[tuple[int, int], Tensor], live: Sequence[int]) -> None:
    """Replace the blocks (i, j), i <= j, of a positive definite matrix by those of its upper Cholesky factor."""
    for at, k in enumerate(live):
        blocks[k, k] = torch.linalg.cholesky(blocks[k, k], upper=True)
        for j in live[at + 1 :]:
            blocks[k, j] = torch.linalg.solve_triangular(blocks[k, k].T, blocks[k, j], upper=False)
        for place, i in enumerate(live[at + 1 :], at + 1):
            for j in live[place:]:
                blocks[i, j].addmm_(blocks[k, i].T, blocks[k, j], alpha=-1.0)


def _matrices(agents: int, view: MatrixView) -> float:
    if view.transposed:
        return 2 * agents + 5  # solving copies what it is given
    return agents * (agents + 1) / 2 + agents + 7


def _wudi(params: WudiParams) -> MatrixMethod:
    solve = partial(_least_disturbance, params.scale, params.ridge)
    return MatrixMethod(solve, of="agents", matrices=_matrices, compares=lambda view: not view.transposed)


def _descent(params: WudiAdamParams, grams: Grams) -> OfBlock:
    """Return what descends from the sum of task vectors with Adam for some rows, which do not depend on others.

    The loss is that of `_least_disturbance`. At D + X, where D is the sum of task vectors and S that of G_t, its
    gradient is 2 * (X S + the sum of (D - tau_t) G_t). Task vectors are divided by their root mean square, so that
    steps mean the same whatever their size.
    """
    live = grams.live
    sizes = [float(grams[agent, agent].trace()) for agent in range(len(grams))]
    if not live:
        return lambda matrices: torch.zeros_like(matrices[0])
    unit = math.sqrt(math.fsum(sizes) / (len(live) * grams.view.rows * grams.view.columns))
    inputs = {agent: grams[agent, agent] / sizes[agent] for agent in live}
    total = added(inputs.values())

    def descended(matrices: Sequence[Tensor]) -> Tensor:
        start = added(matrices[agent] for agent in live)
        first = added(inputs[agent] @ (start - matrices[agent]) for agent in live).div_(unit)
        moved, mean, square = (torch.zeros_like(start) for _ in range(3))
        for step in range(1, params.steps + 1):
            gradient = torch.addmm(first, total, moved).mul_(2.0)
            mean.lerp_(gradient, 1.0 - _BETAS[0])
            square.mul_(_BETAS[1]).addcmul_(gradient, gradient, value=1.0 - _BETAS[1])
            size = (square / (1.0 - _BETAS[1] ** step)).sqrt_().add_(_EPSILON)
            moved.addcdiv_(mean, size, value=-params.learning_rate / (1.0 - _BETAS[0] ** step))
        return start.add_(moved, alpha=unit).mul_(params.scale)

    return descended


def _wudi_adam(params: WudiAdamParams) -> MatrixMethod:
    return MatrixMethod(partial(_descent, params), of="rows", matrices=lambda agents, _: 2 * agents + 3)


METHODS: Sequence[Method] = (
    Method(
        name="wudi",
        summary="The task vector that differs from each agent's least on what that agent learned from.",
        source="arXiv 2503.08099, Eq. 11, solved in closed form with a ridge",
        params=WudiParams,
        kernel=weighted_sum,
        coefficients=scaled_mean,
        matrices=_wudi,
        low_rank="it takes their rounding for inputs that they learned from, about a quarter of its result in "
        "bfloat16; give such agents in float32, or use task_arithmetic",
    ),
    Method(
        name="wudi_adam",
        summary="WUDI as published: some steps of Adam from the sum of the task vectors. wudi ends where they lead.",
        source="arXiv 2503.08099, Alg. 1, with steps relative to the task vectors",
        params=WudiAdamParams,
        kernel=weighted_sum,
        coefficients=scaled_mean,
        matrices=_wudi_adam,
        refuses_steps="its result is no product of the task vectors; use wudi, where the descent would end",
        presets={"paper": {"steps": 300}},
        preset_sources={"paper": "the authors' code, whose step of 1e-5 is absolute"},
    ),
)
