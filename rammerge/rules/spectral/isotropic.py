"""Isotropic merging: Iso-C and Iso-CTS (arXiv 2502.04959)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from pydantic import Field

from rammerge.engine.matrices.method import Grams, MatrixMethod
from rammerge.rules.elementwise.arithmetic import weighted_sum
from rammerge.rules.spec import Method
from rammerge.rules.spectral.algebra import TOLERANCE, polar, spectrum
from rammerge.rules.spectral.parameters import FLAT, ROUNDING, SpectralParams, scaled_mean
from rammerge.system.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

PAPER = "arXiv 2502.04959"


class IsoCtsParams(SpectralParams):
    """Iso-CTS's share of common directions."""

    common: float = Field(0.8, gt=0, le=1, description="share of the directions that come from the sum of all agents")


def _flatten(scale: float, grams: Grams) -> list[Tensor]:
    """Return the multiplier that makes all singular values of the sum their mean, over the short side (Eq. 7)."""
    values, vectors = spectrum(grams[0, 0])
    if not len(values):
        return [torch.zeros_like(grams[0, 0])]
    mean = scale * values.sum() / grams.view.short
    return [(vectors * (mean / values)) @ vectors.T]


def _flatten_common_and_specific(scale: float, share: float, grams: Grams) -> list[Tensor]:
    """Return the multipliers of Iso-CTS: directions of the sum, then each agent's own of what these leave (Alg. 1)."""
    agents, short = len(grams), grams.view.short
    own = round((short - int(share * short)) / agents)
    values, vectors = spectrum(grams.total(), short - own * agents)
    lefts, sizes = [vectors], [values]
    rights = [torch.zeros(short, short).to(vectors) for _ in range(agents)]
    for right in rights:
        right[: len(values)] = (vectors / values).T
    for agent in range(agents):
        rest = _without_common(grams, agent, values, vectors)
        found, directions = spectrum(rest.gram, own)
        # What rounding leaves of an agent in the common directions is nothing of its own.
        kept = int((found > TOLERANCE * grams[agent, agent].trace().sqrt()).sum())
        start = sum(map(len, sizes))
        pick = (directions[:, :kept] / found[:kept]).T
        for at, right in enumerate(rights):
            part = rest.own if at == agent else rest.others
            if part is not None:
                right[start : start + kept] = pick @ part
        lefts.append(directions[:, :kept])
        sizes.append(found[:kept])
    flat = torch.cat(sizes)
    if not len(flat):
        return [torch.zeros_like(grams[0, 0])] * agents
    flat = torch.full_like(flat, scale * float(flat.mean()))
    return polar(torch.cat(lefts, 1), flat, [right[: len(flat)] for right in rights], grams)


@dataclass(frozen=True)
class _Rest:
    """What common directions leave of an agent's matrix: own * its matrix + others * each other one.

    Attributes:
        gram: the inner products of its rows.
        own: multiplier of the agent's matrix.
        others: multiplier of each other matrix, if any.
    """

    gram: Tensor
    own: Tensor
    others: Tensor | None


def _without_common(grams: Grams, agent: int, values: Tensor, vectors: Tensor) -> _Rest:
    """Return the part of an agent's matrix that is orthogonal to the common output directions."""
    identity, gram = torch.eye(len(vectors)).to(vectors), grams[agent, agent]
    if not grams.view.transposed:
        own = identity - vectors @ vectors.T
        return _Rest(own @ gram @ own, own, None)
    # The output is the long side. Its directions are those of the sum's rows, by way of the short side's.
    with_sum = gram.clone()
    for at in range(len(grams)):
        if at != agent:
            with_sum += grams[agent, at]
    along = (with_sum @ (vectors / values**2)) @ vectors.T
    return _Rest(gram - along @ with_sum.T, identity - along, -along)


def _iso_c(params: SpectralParams) -> MatrixMethod:
    return MatrixMethod(partial(_flatten, params.scale), of="sum", matrices=lambda *_: 6)


def _iso_cts(params: IsoCtsParams) -> MatrixMethod:
    solve = partial(_flatten_common_and_specific, params.scale, params.common)
    return MatrixMethod(solve, of="agents", matrices=lambda agents, _: agents * (agents + 1) / 2 + agents + 11)


METHODS: Sequence[Method] = (
    Method(
        name="iso_c",
        summary="Add the task vectors and make all singular values of each matrix their mean.",
        source=f"{PAPER}, Sec. 4.1",
        params=SpectralParams,
        kernel=weighted_sum,
        coefficients=scaled_mean,
        matrices=_iso_c,
        low_rank="its strength is spread over all directions, so that little is left in these few, and what it adds in "
        "the others is rounding; use task_arithmetic",
        refuses_steps=FLAT,
        presets={"fusion-bench": {"scale": 1.0}},
        preset_sources={"fusion-bench": "FusionBench's default"},
    ),
    Method(
        name="iso_cts",
        summary="Iso-C with some directions of each agent's own in place of the weakest common ones.",
        source=f"{PAPER}, Sec. 4.2",
        params=IsoCtsParams,
        kernel=weighted_sum,
        coefficients=scaled_mean,
        matrices=_iso_cts,
        low_rank=ROUNDING,
        refuses_steps=FLAT,
        presets={"paper": {"common": 0.8}},
        preset_sources={"paper": "Sec. 5"},
    ),
)
