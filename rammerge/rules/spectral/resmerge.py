"""ResMerge: residuals and first singular directions merged apart (arXiv 2606.02252)."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from functools import partial
from itertools import combinations_with_replacement
from typing import TYPE_CHECKING

from pydantic import Field

from rammerge.engine.matrices.method import Factored, Grams, MatrixMethod
from rammerge.overlap import Gram
from rammerge.rules.elementwise.arithmetic import weighted_sum
from rammerge.rules.span.combination import quadratic_form
from rammerge.rules.spec import Method
from rammerge.rules.spectral.algebra import spectrum
from rammerge.rules.spectral.parameters import SpectralParams, scaled_mean
from rammerge.system.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

# Of other tensors the paper takes the mean.
_NOT_MERGED = re.compile(r"embed|lm_head|norm|wte|wpe", re.IGNORECASE)
# In these layers the residuals' strength may rise with their coherence.
_COHERENT = re.compile(r"attn|attention|[qkvo]_proj|qkv|mlp|ffn|feed_forward|gate_proj|up_proj|down_proj|experts")
# Exactly orthogonal residuals sit on the edge of a case, up to rounding: they count as not coherent.
_EDGE = 1e-9
# Task vectors that are less coherent than this times orthogonal ones have matrices on both sides of the edge.
_NEAR_EDGE = 1.05


class ResMergeParams(SpectralParams):
    """The strengths of residuals and heads."""

    least_exponent: float = Field(
        0.7, ge=0, le=1, description="exponent of the coherence at its highest; 1 at its lowest"
    )
    head: float = Field(0.2, ge=0, description="strength of the first singular directions, relative to the residuals")


def _heads_and_residuals(scale: float, least: float, head: float, grams: Grams) -> list[Factored]:
    """Return the multipliers of ResMerge: the mean direction of residuals, and a share of the mean head.

    A head is a task vector's first singular component u s v^T = u u^T tau, and the residual is the rest. All lengths
    and angles follow from the inner products of task vectors and of their rows u^T tau.
    """
    firsts = [_first(grams.pairs[agent, agent]) for agent in range(len(grams))]
    heads, residuals = _products(firsts, grams)
    exponent_range = 1.0 - least if _COHERENT.search(grams.view.name) else 0.0
    factors = _residual_factors(residuals, exponent_range)
    size = math.sqrt(quadratic_form(residuals, factors))
    weight = _head_factor(heads, head * size)
    return [
        Factored(scale * (weight - factor) * first, first.T, scale * factor)
        for first, factor in zip(firsts, factors, strict=True)
    ]


def _first(gram: Tensor) -> Tensor:
    """Return the first left singular vector, float64 [m, 1]; zeros of a matrix that is zero."""
    _, vectors = spectrum(gram, most=1)
    return vectors if vectors.numel() else torch.zeros(len(gram), 1).to(gram)


def _products(firsts: Sequence[Tensor], grams: Grams) -> tuple[list[list[float]], list[list[float]]]:
    """Return the inner products of the agents' heads, and of their residuals.

    With r_ta = u_a^T tau_t, those of heads i and j are (u_i u_j)(r_ii r_jj), and those of residuals are
    (tau_i tau_j) - (r_ii r_ji) - (r_ij r_jj) + (u_i u_j)(r_ii r_jj). An agent that changed nothing has no u.
    """
    agents, directions = len(firsts), torch.cat(list(firsts), 1)
    whole = torch.zeros(agents, agents).to(directions)
    rows = torch.zeros(agents**2, agents**2).to(directions)
    for matrices in grams.blocks():
        seen = torch.cat([directions.T @ matrix for matrix in matrices])
        rows.addmm_(seen, seen.T)
        for i, j in combinations_with_replacement(range(agents), 2):
            whole[i, j] += (matrices[i] * matrices[j]).sum()
    along = rows.view(agents, agents, agents, agents)
    heads = directions.T @ directions * torch.einsum("iijj->ij", along)
    cut = torch.einsum("iiji->ij", along) + torch.einsum("ijjj->ij", along)
    residuals = torch.triu(whole) + torch.triu(whole, 1).T - cut + heads
    return heads.tolist(), residuals.tolist()


def _residual_factors(products: Sequence[Sequence[float]], exponent_range: float) -> list[float]:
    """Return the factors of the residuals: their mean direction, at their mean length times coherence ** exponent."""
    n, lengths = len(products), _lengths(products)
    units = _units(lengths)
    together = math.sqrt(quadratic_form(products, units))  # length of the sum of directions
    coherence = min(1.0, together / n)
    if (coherence <= (1.0 + _EDGE) / math.sqrt(n) and n > 1) or not together:
        return [1.0 / n] * n
    similarity = (together**2 - n) / (n * (n - 1)) if n > 1 else 1.0
    score = min(1.0, max(0.0, 0.5 * ((similarity + 1.0) / 2.0 + (coherence + 1.0) / 2.0)))
    strength = coherence ** (1.0 - exponent_range * score) * math.fsum(lengths) / n
    return [strength * unit / together for unit in units]


def _head_factor(products: Sequence[Sequence[float]], wanted: float) -> float:
    """Return the factor of each head, so that the mean head has the length `wanted` times the heads' similarity."""
    n, lengths = len(products), _lengths(products)
    mean = math.sqrt(quadratic_form(products, [1.0 / n] * n))
    if not mean:
        return 0.0
    cosines = [
        max(0.0, products[i][j] / lengths[i] / lengths[j]) if lengths[i] and lengths[j] else 0.0
        for i in range(n)
        for j in range(i)
    ]
    similarity = math.fsum(cosines) / len(cosines) if cosines else 1.0
    return wanted * similarity / mean / n


def _lengths(products: Sequence[Sequence[float]]) -> list[float]:
    """Return the lengths of vectors from their inner products."""
    return [math.sqrt(max(0.0, row[at])) for at, row in enumerate(products)]


def _units(lengths: Sequence[float]) -> list[float]:
    """Return the factors that make vectors of these lengths 1 long; 0 for one without length."""
    return [1.0 / length if length else 0.0 for length in lengths]


def _on_the_edge(gram: Gram) -> list[str]:
    """Return a sentence if the task vectors are hardly more coherent than orthogonal ones, where the result jumps."""
    products, n = gram.matrix(), len(gram.agents)
    coherence = math.sqrt(quadratic_form(products, _units(_lengths(products)))) / n
    if n == 1 or coherence > _NEAR_EDGE / math.sqrt(n):
        return []
    return [
        f"the task vectors are nearly orthogonal (coherence {coherence:.3f}; {1 / math.sqrt(n):.3f} if they were), "
        "where ResMerge takes the mean of some matrices, and of others up to 11 % more; compare with average"
    ]


def _merges(name: str) -> bool:
    return not _NOT_MERGED.search(name)


def _resmerge(params: ResMergeParams) -> MatrixMethod:
    return MatrixMethod(
        partial(_heads_and_residuals, params.scale, params.least_exponent, params.head),
        of="agents",
        matrices=lambda agents, _: agents + 4,
        takes=_merges,
        compares=lambda _: False,
    )


METHODS: Sequence[Method] = (
    Method(
        name="resmerge",
        summary="Merge what is left of each matrix without its first singular direction, and add a share of those.",
        source="arXiv 2606.02252, with the authors' constants",
        params=ResMergeParams,
        kernel=weighted_sum,
        coefficients=scaled_mean,
        matrices=_resmerge,
        forewarns=_on_the_edge,
        low_rank="a fifth is kept of the first direction of each matrix, which is much of such a change, and all of it "
        "at rank 1; use average or task_arithmetic",
        presets={"authors": {"least_exponent": 0.7, "head": 0.2}},
        preset_sources={"authors": "defaults of the authors' script"},
    ),
)
