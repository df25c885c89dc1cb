"""What the methods of this family share: their scope, the inner products that they read, and the kernel."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from rammerge.engine.blocks import Block, Update
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


def products_of(params: SpanParams, statistics: Statistics, tensor: str) -> Products:
    """Return the inner products that count for a tensor."""
    matrix = gram_of(statistics).matrix(tensor if params.scope == "tensor" else None)
    return tuple(map(tuple, matrix))


def quadratic_form(products: Sequence[Sequence[float]], factors: Sequence[float]) -> float:
    """Return the squared length of the sum of factor * vector, exactly summed so that agents may change places."""
    n = len(factors)
    return max(0.0, math.fsum(factors[i] * factors[j] * products[i][j] for i in range(n) for j in range(n)))


def weighted_sum(block: Block) -> Update:
    """Add the task vectors, each by its own factor."""
    total = block.deltas[0] * block.coefficients[0, 0]
    for agent in range(1, len(block.deltas)):
        total = total + block.deltas[agent] * block.coefficients[0, agent]
    return Update(total)
