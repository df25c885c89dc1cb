"""Means of task vectors that respect length and direction: spherical ones, and Model Stock."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import Literal

from pydantic import Field

from rammerge.engine.passes.statistics import Statistics
from rammerge.overlap import cosines
from rammerge.rules.elementwise.arithmetic import weighted_sum
from rammerge.rules.span.combination import (
    Products,
    SpanParams,
    by_products,
    gram_of,
    inner_products,
    products_of,
    quadratic_form,
)
from rammerge.rules.spec import Method

# A shorter sum of unit vectors has no reliable direction.
_NO_DIRECTION = 1e-8
# At smaller angles (radians) the spherical means are the mean, to a millionth of its length.
_SMALL_ANGLE = 1e-3
# Below this cosine Model Stock keeps next to nothing of the agents.
_NEARLY_ORTHOGONAL = 0.05


class SphericalParams(SpanParams):
    """A spherical mean's parameters."""

    scope: Literal["global", "tensor"] = Field("tensor", description="angles over the model or per tensor")


class KarcherParams(SphericalParams):
    """When the iteration ends."""

    iterations: int = Field(100, ge=1, description="most steps of the iteration")
    tolerance: float = Field(1e-10, gt=0, description="the iteration ends at steps shorter than this, in radians")


class StockParams(SpanParams):
    """Model Stock's parameters."""

    scope: Literal["global", "tensor"] = Field("tensor", description="cosines over the model or per tensor")


@cache
def slerp_factors(products: Products) -> tuple[float, ...]:
    """Return the factors of Multi-SLERP: the mean length times the direction of the mean of unit vectors.

    The published formula then takes a step on the sphere along a sum of tangent vectors. That sum is zero, because they
    are tangents at the mean itself. Task vectors of zero have no direction, and their length counts.
    """
    return _to_mean_length(products, _mean_direction(products))


@cache
def karcher_factors(products: Products, iterations: int, tolerance: float) -> tuple[float, ...]:
    """Return the factors of the mean length times the Karcher mean of the directions.

    Angles come from chords, which are exact for small ones, where the arc cosine is not.
    """
    lengths = _lengths(products)
    live = [at for at, length in enumerate(lengths) if length]
    cosine = [[products[i][j] / lengths[i] / lengths[j] for j in live] for i in live]
    start = _mean_direction(products)
    mean = [start[at] * lengths[at] for at in live]
    for _ in range(iterations):
        step = _step(cosine, mean) if any(mean) else [0.0] * len(live)
        length = math.sqrt(quadratic_form(cosine, step))
        if length:
            turn = math.sin(length) / length
            mean = [math.cos(length) * old + turn * new for old, new in zip(mean, step, strict=True)]
        if length < tolerance:
            break
    factors = [0.0] * len(lengths)
    for at, value in zip(live, mean, strict=True):
        factors[at] = value / lengths[at]
    return _to_mean_length(products, factors)


def _step(cosine: Sequence[Sequence[float]], mean: Sequence[float]) -> list[float]:
    """Return the mean of the tangents at `mean` to each unit vector, as factors of the unit vectors."""
    n = len(mean)
    pulls, back = [], []
    for agent in range(n):
        chord = math.sqrt(quadratic_form(cosine, [value - (at == agent) for at, value in enumerate(mean)]))
        angle = 2.0 * math.asin(min(1.0, chord / 2.0))
        sine = math.sin(angle)
        # Towards an opposite vector no direction is shortest.
        pull = angle / sine if sine > _NO_DIRECTION else float(angle < 1.0)
        pulls.append(pull / n)
        back.append(pull / n * math.cos(angle))
    returned = math.fsum(back)
    return [pull - returned * value for pull, value in zip(pulls, mean, strict=True)]


@cache
def stock_factors(products: Products) -> tuple[float, ...]:
    """Return the factors of Model Stock: t / N each, t = N c / (1 + (N - 1) c), c the mean cosine of all pairs.

    A negative mean cosine, for which t would lead away from the agents, gives the base.
    """
    n = len(products)
    if n == 1:
        return (1.0,)
    cosine = _mean_cosine(products)
    return ((cosine / (1.0 + (n - 1) * cosine)) if cosine > 0 else 0.0,) * n


def _mean_cosine(products: Products) -> float:
    n, found = len(products), cosines(products)
    return math.fsum(found[i][j] or 0.0 for i in range(n) for j in range(n) if i != j) / (n * (n - 1))


def _lengths(products: Products) -> list[float]:
    return [math.sqrt(row[at]) for at, row in enumerate(products)]


def _mean_direction(products: Products) -> list[float]:
    """Return the factors of the unit vector along the sum of unit vectors, or zeros where they cancel."""
    units = [1.0 / length if length else 0.0 for length in _lengths(products)]
    length = math.sqrt(quadratic_form(products, units))
    return [unit / length for unit in units] if length > _NO_DIRECTION else [0.0] * len(units)


def _to_mean_length(products: Products, direction: Sequence[float]) -> tuple[float, ...]:
    """Return factors of the vectors' mean length along a direction, or of their mean where there is none."""
    n, length = len(products), math.sqrt(quadratic_form(products, direction))
    if not length:
        return (1.0 / n,) * n
    wanted = math.fsum(_lengths(products)) / n
    return tuple(factor * wanted / length for factor in direction)


def _small_angles(_: SphericalParams, statistics: Statistics) -> list[str]:
    smallest = min(cosine for row in gram_of(statistics).cosines() for cosine in row if cosine is not None)
    if len(gram_of(statistics).agents) > 1 and smallest > math.cos(_SMALL_ANGLE):
        return ["all task vectors point the same way: this mean differs from `average` by less than rounding does"]
    return []


def _few_in_common(_: StockParams, statistics: Statistics) -> list[str]:
    products = products_of(statistics)
    cosine = _mean_cosine(products) if len(products) > 1 else 1.0
    if cosine < _NEARLY_ORTHOGONAL:
        return [
            f"the task vectors are nearly orthogonal (mean cosine {cosine:.3f}): Model Stock takes what they do not "
            "share for noise and stays close to the base; compare with task_arithmetic"
        ]
    return []


METHODS: Sequence[Method] = (
    Method(
        name="multi_slerp",
        summary="The mean of the task vectors' directions, at their mean length.",
        source="mergekit's multislerp on task vectors, without its tangent step, which is zero",
        params=SphericalParams,
        kernel=weighted_sum,
        coefficients=by_products(lambda _, products: slerp_factors(products)),
        passes=inner_products,
        cautions=_small_angles,
        presets={"mergekit": {"scope": "tensor"}},
        preset_sources={"mergekit": "mergekit's defaults, with a base model"},
    ),
    Method(
        name="karcher",
        summary="The Karcher mean of the task vectors' directions on the sphere, at their mean length.",
        source="arXiv 2603.04972, on task vectors, with angles from chords",
        params=KarcherParams,
        kernel=weighted_sum,
        coefficients=by_products(
            lambda params, products: karcher_factors(products, params.iterations, params.tolerance)
        ),
        passes=inner_products,
        cautions=_small_angles,
        presets={"mergekit": {"iterations": 10, "tolerance": 1e-5}},
        preset_sources={"mergekit": "mergekit's defaults"},
    ),
    Method(
        name="model_stock",
        summary="The mean of the agents, drawn towards the base the less their task vectors point the same way.",
        source="arXiv 2403.19522, Eq. 7",
        params=StockParams,
        kernel=weighted_sum,
        coefficients=by_products(lambda _, products: stock_factors(products)),
        passes=inner_products,
        cautions=_few_in_common,
        presets={"paper": {"scope": "tensor"}},
        preset_sources={"paper": "Sec. 4, layer by layer"},
    ),
)
