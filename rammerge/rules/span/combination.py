"""What the methods of this family share: their scope, and the inner products that they read."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

from pydantic import Field

from rammerge.engine.passes.products import InnerProducts
from rammerge.engine.passes.statistics import Statistics
from rammerge.overlap import Gram
from rammerge.rules.spec import Params

# [i][j] = <tau_i, tau_j>. Hashable, so that what is found for the whole model is found once.
Products = tuple[tuple[float, ...], ...]


class SpanParams(Params):
    """Over what inner products are taken, and the scale of the result."""

    scope: Literal["global", "tensor"] = Field("global", description="inner products over the model or per tensor")
    scale: float = Field(1.0, ge=0, description="factor of the merged task vector")


def inner_products(_: SpanParams, __: int) -> list[InnerProducts]:
    """Return the pass that these methods need."""
    return [InnerProducts()]


def gram_of(statistics: Statistics) -> Gram:
    """Return the task vectors' inner products."""
    return statistics[InnerProducts()]


def products_of(statistics: Statistics, tensor: str | None = None) -> Products:
    """Return the inner products over one tensor or (None) the whole model."""
    return tuple(map(tuple, gram_of(statistics).matrix(tensor)))


def by_products(
    find: Callable[[Any, Products], Sequence[float]],
) -> Callable[[SpanParams, Statistics, str, int], list[list[float]]]:
    """Return coefficients: the scale times what `find` makes of parameters and of the inner products in their scope."""

    def coefficients(params: SpanParams, statistics: Statistics, tensor: str, _: int) -> list[list[float]]:
        products = products_of(statistics, tensor if params.scope == "tensor" else None)
        return [[params.scale * factor for factor in find(params, products)]]

    return coefficients


def inner_product(products: Sequence[Sequence[float]], left: Sequence[float], right: Sequence[float]) -> float:
    """Return the inner product of two sums of factor * vector, exactly summed so that agents may change places."""
    n = len(left)
    return math.fsum(left[i] * right[j] * products[i][j] for i in range(n) for j in range(n))


def quadratic_form(products: Sequence[Sequence[float]], factors: Sequence[float]) -> float:
    """Return the squared length of the sum of factor * vector."""
    return max(0.0, inner_product(products, factors, factors))
