"""What overlap would be if agents chose the elements that they change independently of one another."""

import math
from collections.abc import Sequence
from itertools import combinations


def shared_by_chance(active: Sequence[int], elements: int) -> list[float]:
    """Return how many elements each agent would share with others within a tensor.

    At densities d_t agent t's element is unique with probability prod over s != t of (1 - d_s).

    Args:
        active: elements of the tensor that each agent changed.
        elements: of the tensor.
    """
    densities = [count / elements for count in active] if elements else [0.0] * len(active)
    unique = [math.prod(1.0 - other for at, other in enumerate(densities) if at != own) for own in range(len(active))]
    return [count * (1.0 - share) for count, share in zip(active, unique, strict=True)]


def both_by_chance(active: Sequence[int], elements: int) -> list[float]:
    """Return how many elements of a tensor each two agents i < j would both change: n_i * n_j / elements."""
    return [left * right / elements if elements else 0.0 for left, right in combinations(active, 2)]
