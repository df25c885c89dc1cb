"""TSV-M: merging by task singular vectors (arXiv 2412.00081)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from pydantic import Field

from rammerge.engine.matrices.method import Grams, MatrixMethod
from rammerge.rules.elementwise.arithmetic import weighted_sum
from rammerge.rules.spec import Method
from rammerge.rules.spectral.algebra import polar, spectrum
from rammerge.rules.spectral.parameters import SpectralParams, scaled_mean
from rammerge.system.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor


class TsvParams(SpectralParams):
    """How many singular vectors each agent keeps."""

    rank: float = Field(1.0, gt=0, le=1, description="share that is kept of the short side divided by the agents")


def orthogonalize(scale: float, share: float, grams: Grams) -> list[Tensor]:
    """Return the multipliers that keep each agent's first singular vectors and make them orthogonal (Eq. 5, Alg. 1).

    An agent that did not change the matrix has no singular vectors, and takes no part of the room.
    """
    agents, short = len(grams), grams.view.short
    live = grams.live
    if not live:
        return [torch.zeros_like(grams[0, 0])] * agents
    room = max(1, int(share * short / len(live)))
    found = {agent: spectrum(grams[agent, agent], room) for agent in live}
    values = torch.cat([values for values, _ in found.values()])
    left = torch.cat([vectors for _, vectors in found.values()], 1)
    rights, start = [], 0
    for agent in range(agents):
        right = torch.zeros(len(values), short).to(values)
        if agent in found:
            own, vectors = found.pop(agent)
            right[start : start + len(own)] = (vectors / own).T
            start += len(own)
        rights.append(right)
    return polar(left, scale * values, rights, grams)


def _tsv_m(params: TsvParams) -> MatrixMethod:
    solve = partial(orthogonalize, params.scale, params.rank)
    return MatrixMethod(solve, of="agents", matrices=lambda agents, _: agents * (agents + 1) / 2 + agents + 7)


METHODS: Sequence[Method] = (
    Method(
        name="tsv_m",
        summary="Keep each agent's first singular vectors of each matrix, make them orthogonal, and add them.",
        source="arXiv 2412.00081, Alg. 1",
        params=TsvParams,
        kernel=weighted_sum,
        coefficients=scaled_mean,
        matrices=_tsv_m,
        presets={"fusion-bench": {"scale": 1.0, "rank": 1.0}},
        preset_sources={"fusion-bench": "FusionBench's default"},
    ),
)
