"""What a number of items can show: the smallest difference that a paired comparison detects, and what a limit demands.

Both are answered before a run, from the numbers of items alone, and after it, from the items that differed.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

from evaluation.statistics import (
    FEW_CLUSTERS,
    Difference,
    Estimate,
    macro_average,
    tango_interval,
    told_by_clusters,
    wilson_interval,
)

POWER = 0.8
# Correlation of two related scores, before any is measured: that of items of one passage or template is 0.1 to 0.3.
CORRELATION = 0.2


@dataclass(frozen=True)
class Items:
    """The items of one suite, before anybody has answered them.

    Attributes:
        count: number of scores: items times answers to each.
        clusters: number of scores in each cluster of related ones; empty if all are independent.
    """

    count: int
    clusters: Sequence[int] = ()

    def expected(self, confidence: float) -> float:
        """Return how many independent scores are expected to tell as much, for the correlation `CORRELATION`.

        The design effect is 1 + (sum(m_c^2) / n - 1) rho for clusters of m_c scores. Kish (1965), Survey Sampling, 5.4.
        """
        if not self.clusters:
            return self.count
        effect = 1 + (math.fsum(size * size for size in self.clusters) / self.count - 1) * CORRELATION
        return self.count / effect * told_by_clusters(len(self.clusters), confidence)

    def at_best(self, differing: int, confidence: float) -> float:
        """Return how many independent scores tell as much if `differing` scores differ, each in its own cluster."""
        if not self.clusters:
            return self.count
        if differing < FEW_CLUSTERS:
            return len(self.clusters)
        return self.count * told_by_clusters(len(self.clusters), confidence)


def detectable_difference(
    suites: Sequence[Items], changed: Sequence[float], *, confidence: float = 0.95, power: float = POWER
) -> float | None:
    """Return the smallest true difference of two models' averages over suites that is shown with probability `power`.

    For S suites of n_s independent items, and the mean square q_s of the paired differences of items (for 0/1 scores
    the share of items on which the models differ), the difference d solves
    S d = z(confidence) sqrt(sum(q_s / n_s)) + z(power) sqrt(sum((q_s - d^2) / n_s)):
    the variance of a paired difference is its mean square minus d^2, and without a difference it is the mean square.
    Connett, Smith & McHugh (1987), Stat. in Medicine 6:537; Miller (2024), arXiv 2411.00640, Sec. 5.

    None means that not even a model that wins all the items on which the two differ would be shown to be better.

    Args:
        suites: items of each suite; related ones count for as many independent ones as are expected to tell as much.
        changed: q_s of each suite, in [0, 1].
        confidence: level of the intervals.
        power: probability that the interval excludes 0.
    """
    sizes = [items.expected(confidence) for items in suites]
    spread = math.fsum(share / size for share, size in zip(changed, sizes, strict=True)) / len(sizes) ** 2
    shrinking = NormalDist().inv_cdf(power) ** 2 * math.fsum(1 / size for size in sizes) / len(sizes) ** 2
    least = _quantile(confidence) * math.sqrt(spread)  # what the interval alone asks for
    more = NormalDist().inv_cdf(power) ** 2 * spread
    left = more * (1 + shrinking) - least**2 * shrinking
    if left < 0:  # the interval alone asks for more than all items on which they differ
        return None
    difference = (least + math.sqrt(left)) / (1 + shrinking)
    return difference if difference <= math.fsum(changed) / len(changed) else None


def detected(difference: Difference, *, confidence: float = 0.95) -> float:
    """Return the smallest true difference that a comparison as noisy as this one shows with probability `POWER`.

    It is half of the interval's width times (z(confidence) + z(POWER)) / z(confidence), whatever made the interval.
    """
    more = NormalDist().inv_cdf(POWER) / _quantile(confidence)
    return (difference.high - difference.low) / 2 * (1 + more)


def least_gain(suites: Sequence[Items], margin: float, *, confidence: float = 0.95) -> float | None:
    """Return the smallest average difference that proves a model to be less than `margin` worse, if it loses no item.

    This is the least for any model, because each lost item raises it. Gains are spread over the suites by their size,
    and over clusters. None means that winning every item would not prove it. 0 means that an equal model proves it.

    Args:
        suites: items of each suite.
        margin: at least 0; with 0 the question is whether the model is better.
        confidence: level of the intervals, which are Tango's and MOVER's as in `evaluation.statistics`.
    """

    def gain(share: float) -> Estimate:
        return macro_average([_won(math.ceil(share * items.count), items, confidence) for items in suites])

    largest = max(items.count for items in suites)
    enough = (won for won in range(largest + 1) if gain(won / largest).low > -margin)
    won = next(enough, None)
    return None if won is None else gain(won / largest).value


def items_to_show_equal(margin: float, *, confidence: float = 0.95) -> int:
    """Return how many items of one suite prove by their agreement alone that a model is less than `margin` worse.

    Of related items it is the number of clusters. Where no item differs, Tango's interval is +-z^2 / (n + z^2).
    """
    z_squared = _quantile(confidence) ** 2
    return math.floor(z_squared * (1 - margin) / margin) + 1


def highest_floor(suites: Sequence[Items], *, confidence: float = 0.95) -> float:
    """Return the lower limit of a perfect score: no model is shown to score more on these items."""
    sizes = [items.at_best(0, confidence) for items in suites]
    perfect = [Estimate(1.0, *wilson_interval(size, size, confidence), 0, "Wilson") for size in sizes]
    return macro_average(perfect).low


def _quantile(confidence: float) -> float:
    return NormalDist().inv_cdf((1 + confidence) / 2)


def _won(wins: int, items: Items, confidence: float) -> Difference:
    size = items.at_best(wins, confidence)
    low, high = tango_interval(wins / items.count * size, 0, size, confidence)
    return Difference(wins / items.count, low, high, items.count, "Tango", wins, 0, 1.0, "")
