"""Synchronized successive rejects: which candidates see how many of the items before the worst are dropped.

Successive rejects (Audibert, Bubeck and Munos, COLT 2010) finds the best of K candidates with a budget of n answers by
K - 1 phases. Phase k gives each of the K + 1 - k candidates that are left n_k answers in all, with

    n_k = ceil((n - K) / (logbar(K) (K + 1 - k))),    logbar(K) = 1/2 + sum_{i=2..K} 1/i,

and drops the one with the lowest mean. Synchronized (arXiv 2606.07726), all candidates that are left see the same
items, so that the differences between them are paired. Here the budget is such that the last two see all N items. Then
n_k = 2 N / (K + 1 - k), whatever K is: who is left when `a` candidates are left has seen at least 2 / a of the items.

Shares are rounded up to those of SHARES. So all searches cut the items at the same places and share their answers. The
first look is one for all candidates, because a proposal of the next has to compare what it learns from.
"""

from collections.abc import Sequence
from fractions import Fraction

# What a candidate has seen of each suite's items after each look.
SHARES = tuple(Fraction(1, part) for part in (8, 4, 2, 1))


def left(candidates: int) -> list[int]:
    """Return how many of `candidates` take part in each look."""
    # With `a` candidates left, the share 2 / a is above the look before only if a < 2 / share.
    later = [-(-2 * share.denominator // share.numerator) - 1 for share in SHARES[:-1]]
    return [candidates, *(min(candidates, count) for count in later)]


def slices(items: int) -> list[tuple[int, int]]:
    """Return the part of a suite's items, in their order of asking, that each look adds."""
    ends = [-(-items * share.numerator // share.denominator) for share in SHARES]
    return list(zip([0, *ends[:-1]], ends, strict=True))


def answers(candidates: int, sizes: Sequence[int]) -> int:
    """Return how many answers `candidates` take together on suites of these sizes."""
    added = [sum(end - start for start, end in parts) for parts in zip(*map(slices, sizes), strict=True)]
    return sum(count * items for count, items in zip(left(candidates), added, strict=True))


def affordable(budget: int, sizes: Sequence[int], most: int) -> int:
    """Return how many candidates, at most `most`, take no more than `budget` answers; 0 if even two take more."""
    return next((count for count in range(most, 1, -1) if answers(count, sizes) <= budget), 0)
