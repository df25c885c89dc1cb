"""TSV-M: merging by task singular vectors (arXiv 2412.00081)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import accumulate, combinations
from typing import TYPE_CHECKING

from pydantic import Field

from rammerge.engine.matrices.method import Factored, Grams, MatrixMethod
from rammerge.rules.elementwise.arithmetic import weighted_sum
from rammerge.rules.spec import Method
from rammerge.rules.spectral.algebra import polar_rows, spectrum
from rammerge.rules.spectral.parameters import ROUNDING, SpectralParams, scaled_mean
from rammerge.system.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor


class TsvParams(SpectralParams):
    """How many singular vectors each agent keeps."""

    rank: float = Field(1.0, gt=0, le=1, description="share that is kept of the short side divided by the agents")


def orthogonalize(scale: float, share: float, grams: Grams) -> list[Factored]:
    """Return the multipliers that keep each agent's first singular vectors and make them orthogonal (Eq. 5, Alg. 1).

    An agent that did not change the matrix has no singular vectors, and takes no part of the room.
    """
    agents, short = len(grams), grams.view.short
    live = grams.live
    if not live:
        return [Factored(grams[0, 0][:, :0], grams[0, 0][:0])] * agents
    room = max(1, int(share * short / len(live)))
    # The decomposition is the last that an agent's own inner products are needed for.
    found = {agent: spectrum(grams.pairs.pop((agent, agent)), room) for agent in live}
    left = torch.cat([vectors for _, vectors in found.values()], 1)
    values = torch.cat([own for own, _ in found.values()])
    rights = {agent: (vectors / own).T.contiguous() for agent, (own, vectors) in found.items()}
    del found
    rows = _products(rights, grams)
    turned = polar_rows(left, scale * values, rows)
    del left, rows
    made = {agent: Factored(turned[:, part], rights[agent]) for agent, part in _parts(rights).items()}
    nothing = Factored(turned[:, :0], turned.T[:0])
    return [made.get(agent, nothing) for agent in range(agents)]


def _products(rights: Mapping[int, Tensor], grams: Grams) -> Tensor:
    """Return the inner products of all agents' right singular vectors; those of one agent are orthonormal."""
    parts = _parts(rights)
    rows = torch.eye(sum(map(len, rights.values()))).to(next(iter(rights.values())))
    for i, j in combinations(rights, 2):
        product = rights[i] @ grams.pairs.pop((i, j)) @ rights[j].T
        rows[parts[i], parts[j]] = product
        rows[parts[j], parts[i]] = product.T
    return rows


def _parts(rights: Mapping[int, Tensor]) -> dict[int, slice]:
    """Return the place of each agent's singular vectors among those of all."""
    ends = accumulate(map(len, rights.values()))
    return {agent: slice(end - len(rights[agent]), end) for agent, end in zip(rights, ends, strict=True)}


def _tsv_m(params: TsvParams) -> MatrixMethod:
    solve = partial(orthogonalize, params.scale, params.rank)
    return MatrixMethod(solve, of="agents", matrices=lambda agents, _: agents * (agents + 1) / 2 + 4)


METHODS: Sequence[Method] = (
    Method(
        name="tsv_m",
        summary="Keep each agent's first singular vectors of each matrix, make them orthogonal, and add them.",
        source="arXiv 2412.00081, Alg. 1",
        params=TsvParams,
        kernel=weighted_sum,
        coefficients=scaled_mean,
        matrices=_tsv_m,
        low_rank=ROUNDING,
        presets={"fusion-bench": {"scale": 1.0, "rank": 1.0}},
        preset_sources={"fusion-bench": "FusionBench's default"},
    ),
)
