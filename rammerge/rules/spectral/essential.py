"""ESM: Essential Subspace Merging, language variant (arXiv 2602.20208 and 2606.19164): directions chosen by data.

Where TSV-M keeps the first singular directions of a task vector, ESM keeps those in which the task vector moves the
layer's outputs most on prompts. Both factors then get orthogonal directions, all of the same strength.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from pydantic import Field

from rammerge.engine.matrices.method import Grams, MatrixMethod, Moments, Multiplier
from rammerge.engine.matrices.view import MatrixView
from rammerge.rules.elementwise.arithmetic import weighted_sum
from rammerge.rules.spec import Method
from rammerge.rules.spectral.algebra import row_products, spectrum
from rammerge.rules.spectral.parameters import FLAT, ROUNDING, SpectralParams, scaled_mean
from rammerge.rules.spectral.singular_vectors import orthogonalize
from rammerge.system.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

_NUMBER = re.compile(r"(?<=\.)\d+(?=\.)")


class EsmParams(SpectralParams):
    """How many directions each agent keeps, and how unequal strengths are made more unequal."""

    rank: float = Field(1.0, gt=0, le=1, description="share that is kept of a layer's outputs divided by the agents")
    component_exponent: float = Field(0.15, ge=0, description="exponent of a direction's share of the moved outputs")
    layer_exponent: float = Field(2.0, ge=0, description="exponent of a layer's length relative to its kind's mean")


def _merge(params: EsmParams, grams: Grams) -> Sequence[Multiplier]:
    """Return the multipliers of ESM, or those of TSV-M for a matrix of which there is no data."""
    if grams.moments is None:
        return orthogonalize(params.scale, params.rank, grams)
    live = grams.live
    outputs = grams.view.columns if _inputs_first(grams.view, grams.moments) else grams.view.rows
    room = max(1, int(params.rank * outputs / len(live))) if live else 0
    lefts, rights = [], []
    for agent in live:
        left, right = _directions(grams, grams.moments, agent, room, params.component_exponent)
        lefts.append(left)
        rights.append(right)
    if not sum(map(len, rights)):
        return [torch.zeros_like(grams[0, 0])] * len(grams)
    return _with_equal_strengths(params.scale, lefts, rights, grams)


def _inputs_first(view: MatrixView, moments: Moments) -> bool:
    """Return whether a matrix is stored [inputs, outputs]."""
    return view.transposed == moments.of_outputs


def _directions(grams: Grams, moments: Moments, agent: int, room: int, exponent: float) -> tuple[Tensor, Tensor]:
    """Return the factors of an agent's part: L [short, k], and R [k, short], which stands for R times its matrix.

    With Q the first k principal directions of the outputs' shift X tau^T and g their strengths, tau is cut to
    (Q g) (g Q^T tau). Where the outputs are the short side, L = Q g and R = g Q^T.
    Elsewhere tau^T is the matrix, (g Q^T tau)^T comes first, and Q = tau A with A = C^(1/2) Z / s from
    C^(1/2) tau^T tau C^(1/2) = Z s^2 Z^T, where C are the inputs' second moments.
    """
    own, gram = moments.matrices[agent], grams[agent, agent]
    if moments.of_outputs:
        values, vectors = spectrum(own, room)
        right = vectors.T
        left = vectors
    else:
        lengths, inputs = spectrum(own)
        root = (inputs * lengths) @ inputs.T
        values, vectors = spectrum(root @ gram @ root, room)
        right = (root @ vectors / values).T
        left = gram @ right.T
    strengths = _strengths(values, exponent)
    return left * strengths, strengths[:, None] * right


def _strengths(values: Tensor, exponent: float) -> Tensor:
    """Return (e / mean e) ** exponent, divided by its mean, with e the squared singular values."""
    if not len(values):
        return values
    shares = (values.square() / values.square().mean()) ** exponent
    return shares / shares.mean()


def _with_equal_strengths(scale: float, lefts: list[Tensor], rights: list[Tensor], grams: Grams) -> list[Tensor]:
    """Return the multipliers of P Q, with P and Q the polar factors of both sides, each times its mean singular value.

    Means are over all singular values of a side, zeros included.
    """
    live, short, count = grams.live, grams.view.short, sum(map(len, rights))
    left, blocks, start = torch.cat(lefts, 1), [], 0
    for agent in range(len(grams)):
        block = torch.zeros(count, short).to(left)
        if agent in live:
            part = rights.pop(0)
            block[start : start + len(part)] = part
            start += len(part)
        blocks.append(block)
    (tall, tall_vectors), (wide, wide_vectors) = spectrum(left.T @ left), spectrum(row_products(blocks, grams))
    strength = scale * tall.sum() / min(short, count) * wide.sum() / min(count, grams.view.long)
    turned = left @ (tall_vectors / tall) @ tall_vectors.T @ (wide_vectors * (strength / wide)) @ wide_vectors.T
    return [turned @ blocks.pop(0) for _ in range(len(grams))]


def _across_layers(exponent: float, norms: Mapping[str, float]) -> dict[str, float]:
    """Return (norm / mean norm) ** exponent, with means over the layers of one kind: names that differ in numbers."""
    kinds: dict[str, list[float]] = {}
    for name, norm in norms.items():
        kinds.setdefault(_kind(name), []).append(norm)
    means = {kind: math.fsum(found) / len(found) for kind, found in kinds.items()}
    return {name: (norm / means[_kind(name)]) ** exponent if norm else 0.0 for name, norm in norms.items()}


def _kind(name: str) -> str:
    return _NUMBER.sub("*", name)


def _room_needed(agents: int, _: MatrixView) -> float:
    """Return how many matrices are held at once."""
    return agents * (agents + 1) / 2 + 2 * agents + 9


def _esm(params: EsmParams) -> MatrixMethod:
    across: Callable[[Mapping[str, float]], Mapping[str, float]] = partial(_across_layers, params.layer_exponent)
    return MatrixMethod(
        partial(_merge, params),
        of="agents",
        matrices=_room_needed,
        needs_moments=True,
        across=across,
    )


METHODS: Sequence[Method] = (
    Method(
        name="esm",
        summary="Keep the directions in which each agent moves a layer's outputs most on prompts, and add them.",
        source="arXiv 2602.20208, with the authors' constants for language models",
        params=EsmParams,
        kernel=weighted_sum,
        coefficients=scaled_mean,
        matrices=_esm,
        low_rank=ROUNDING,
        refuses_steps=FLAT,
        needs_prompts=True,
        presets={"authors": {"rank": 1.0, "component_exponent": 0.15, "layer_exponent": 2.0}},
        preset_sources={"authors": "the authors' script for language models"},
    ),
)
