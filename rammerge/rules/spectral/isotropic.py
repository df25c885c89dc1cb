"""Isotropic merging: Iso-C and Iso-CTS (arXiv 2502.04959)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from typing import TYPE_CHECKING

from pydantic import Field

from rammerge.engine.matrices.method import Grams, MatrixMethod, Solution, added
from rammerge.rules.elementwise.arithmetic import weighted_sum
from rammerge.rules.spec import Method
from rammerge.rules.spectral.algebra import TOLERANCE, spectrum, spectrum_and_rest, times_inverse_root
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


def _flatten_common_and_specific(scale: float, share: float, grams: Grams) -> Solution:
    """Return what makes a block of Iso-CTS: directions of the sum, then each agent's own of what these leave (Alg. 1).

    With V and s the singular vectors and values of the sum S, and E_t and e_t those of rest_t, which is tau_t without
    the output directions of S that are kept, the result is the product of the polar factors of [V, E_1, ...] and of the
    rows V^T S / s and E_t^T rest_t / e_t.
    """
    agents, short = len(grams), grams.view.short
    own = round((short - int(share * short)) / agents)
    *found, rest = spectrum_and_rest(grams.total(), short - own * agents)
    common = _Directions(*found)
    parts = [_specific(grams, agent, common, rest, own) for agent in range(agents)]
    sizes = torch.cat([common.values, *(part.values for part in parts)])
    if not len(sizes):
        return [torch.zeros_like(grams[0, 0])] * agents
    count, vectors = len(common.values), torch.cat([part.vectors for part in parts], 1)
    along = torch.cat([part.pick @ _with_sum(grams, agent) for agent, part in enumerate(parts)]) @ common.pick.T
    left = torch.cat([common.vectors, vectors], 1)
    turned = times_inverse_root(left, common.vectors.T @ vectors, vectors.T @ vectors)
    rows = _products_of_rows(grams, parts)
    if grams.view.transposed:
        # rest_t is tau_t less `along` times the rows of the sum, and orthogonal to these.
        turned = times_inverse_root(turned, torch.zeros_like(along.T), rows - along @ along.T)
        turned[:, :count] -= turned[:, count:] @ along
    else:
        turned = times_inverse_root(turned, along.T, rows)
    turned *= scale * float(sizes.mean())
    of_sum = turned[:, :count] @ common.pick
    ends = list(accumulate(len(part.values) for part in parts))
    lefts = torch.tensor_split(turned[:, count:], ends[:-1], 1)

    def merged(matrices: Sequence[Tensor]) -> Tensor:
        update = of_sum @ added(matrices)
        for left, part, matrix in zip(lefts, parts, matrices, strict=True):
            update.addmm_(left, part.pick @ matrix)
        return update

    return merged


@dataclass(frozen=True)
class _Directions:
    """Some singular directions of a matrix from its short side.

    Attributes:
        values: float64 [k], the singular values.
        vectors: float64 [short, k], on the short side.
    """

    values: Tensor
    vectors: Tensor

    @property
    def pick(self) -> Tensor:
        """What makes the singular vectors of the long side of the matrix: float64 [k, short]."""
        return (self.vectors / self.values).T


def _specific(grams: Grams, agent: int, common: _Directions, rest: Tensor, most: int) -> _Directions:
    """Return the first directions of what is left of an agent's matrix without the common outputs.

    `rest` is a basis of the directions of the short side that are not common.
    """
    gram = grams[agent, agent]
    if grams.view.transposed:
        # The output is the long side. Its directions are those of the sum's rows, by way of the short side's.
        seen = _with_sum(grams, agent) @ common.pick.T
        values, vectors = spectrum(gram - seen @ seen.T, most)
    else:
        values, vectors = spectrum(rest.T @ gram @ rest, most)
        vectors = rest @ vectors
    # What rounding leaves of an agent in the common directions is nothing of its own.
    kept = int((values > TOLERANCE * gram.trace().sqrt()).sum())
    return _Directions(values[:kept], vectors[:, :kept])


def _with_sum(grams: Grams, agent: int) -> Tensor:
    """Return the inner products of an agent's rows with those of the sum."""
    return added(grams[agent, other] for other in range(len(grams)))


def _products_of_rows(grams: Grams, parts: Sequence[_Directions]) -> Tensor:
    """Return the inner products of all the rows pick_t tau_t."""
    agents = range(len(parts))
    return torch.cat([torch.cat([parts[i].pick @ grams[i, j] @ parts[j].pick.T for j in agents], 1) for i in agents])


def _iso_c(params: SpectralParams) -> MatrixMethod:
    return MatrixMethod(partial(_flatten, params.scale), of="sum", matrices=lambda *_: 6)


def _iso_cts(params: IsoCtsParams) -> MatrixMethod:
    solve = partial(_flatten_common_and_specific, params.scale, params.common)
    return MatrixMethod(solve, of="agents", matrices=lambda agents, _: agents * (agents + 1) / 2 + 9)


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
