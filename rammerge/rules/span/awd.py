"""Adaptive Weight Disentanglement (arXiv 2411.18729): remove what makes task vectors alike, then add them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache

from pydantic import Field

from rammerge.engine.passes.statistics import Statistics
from rammerge.rules.elementwise.arithmetic import weighted_sum
from rammerge.rules.span.combination import (
    Products,
    SpanParams,
    by_products,
    inner_product,
    inner_products,
    products_of,
    quadratic_form,
)
from rammerge.rules.spec import Method

# If the factors differ by less than this share, nothing was removed that a user would notice.
_NOTHING_REMOVED = 0.01
# A vector whose square is a smaller share of the mean square has no reliable direction.
_NO_DIRECTION = 1e-20


class AwdParams(SpanParams):
    """The loss and the gradient descent. Lengths are relative to the task vectors' root mean square length."""

    alpha: float = Field(0.1, ge=0, description="weight of the redundant vector's length in the loss")
    step: float = Field(0.01, gt=0, description="step of the gradient descent, relative to the task vectors' length")
    iterations: int = Field(300, ge=1, description="steps of the gradient descent")


@cache
def redundant(products: Products, alpha: float, step: float, iterations: int) -> tuple[float, ...]:
    """Return the redundant vector d, as factors of the task vectors: the best point of a gradient descent from zero.

    The loss is the mean of |cos(tau_i - d, tau_j - d)| over pairs, plus alpha * |d| (Eq. 9 to 11). Its gradient is a
    combination of the task vectors, and so is d: all steps need no more than the inner products. The loss has a kink
    where a cosine is zero, about which the last steps swing. So the best point is taken, not the last.
    """
    n = len(products)
    size = math.fsum(products[at][at] for at in range(n)) / n
    if n == 1 or not size:
        return (0.0,) * n
    scaled = [[value / size for value in row] for row in products]
    factors = best = (0.0,) * n
    least = math.inf
    for _ in range(iterations + 1):
        loss, gradient = _descent(scaled, factors, alpha)
        if loss < least:
            least, best = loss, factors
        if not any(gradient):
            break
        factors = tuple(value - step * slope for value, slope in zip(factors, gradient, strict=True))
    return best


def _descent(products: Sequence[Sequence[float]], factors: Sequence[float], alpha: float) -> tuple[float, list[float]]:
    """Return the loss at d and its gradient, both as factors of the task vectors."""
    n = len(factors)
    rest = [[float(at == agent) - factor for at, factor in enumerate(factors)] for agent in range(n)]
    inner = [[inner_product(products, left, right) for right in rest] for left in rest]
    losses, slopes = [], [[0.0] for _ in range(n)]
    for i in range(n):
        for j in range(i):
            if min(inner[i][i], inner[j][j]) <= _NO_DIRECTION:
                continue
            lengths = math.sqrt(inner[i][i]) * math.sqrt(inner[j][j])
            cosine = inner[i][j] / lengths
            losses.append(abs(cosine))
            sign = math.copysign(1.0, cosine) if cosine else 0.0
            for at in range(n):
                towards = (rest[i][at] + rest[j][at]) / lengths
                along = cosine * (rest[i][at] / inner[i][i] + rest[j][at] / inner[j][j])
                slopes[at].append(sign * (along - towards))
    pairs, length = n * (n - 1) / 2, math.sqrt(quadratic_form(products, factors))
    shrink = alpha / length if length else 0.0
    gradient = [math.fsum(slope) / pairs + shrink * factor for slope, factor in zip(slopes, factors, strict=True)]
    return math.fsum(losses) / pairs + alpha * length, gradient


def _factors(params: AwdParams, products: Products) -> list[float]:
    """Return the factors of the sum of (tau_t - d)."""
    found = redundant(products, params.alpha, params.step, params.iterations)
    return [1.0 - len(found) * factor for factor in found]


def _nothing_to_remove(params: AwdParams, statistics: Statistics) -> list[str]:
    removed = redundant(products_of(statistics), params.alpha, params.step, params.iterations)
    if all(len(removed) * abs(factor) < _NOTHING_REMOVED for factor in removed):
        return ["the task vectors have next to nothing in common that AWD could remove: this is task_arithmetic"]
    return []


METHODS: Sequence[Method] = (
    Method(
        name="awd",
        summary="Find a vector whose removal makes the task vectors orthogonal, remove it from each, and add them.",
        source="arXiv 2411.18729, Eq. 9 to 11, with task arithmetic",
        params=AwdParams,
        kernel=weighted_sum,
        coefficients=by_products(_factors),
        passes=inner_products,
        cautions=_nothing_to_remove,
        presets={"reimplementation": {"alpha": 0.1, "step": 0.01, "iterations": 300}},
        preset_sources={"reimplementation": "a public reimplementation; the authors have published no code"},
    ),
)
