"""What a number of items can show: the smallest difference that a paired comparison detects, and what a limit demands.

Both are answered before a run, from the numbers of items alone, and after it, from the items that differed.
"""

import math
from collections.abc import Sequence
from statistics import NormalDist

from evaluation.statistics import Difference, Estimate, macro_average, tango_interval, wilson_interval

POWER = 0.8


def detectable_difference(
    sizes: Sequence[int], changed: Sequence[float], *, confidence: float = 0.95, power: float = POWER
) -> float:
    """Return the smallest true difference of two models' averages over suites that is shown with probability `power`.

    With K = z(confidence) + z(power), S suites of n_s items, and the mean square q_s of the paired differences of items
    (for 0/1 scores the share of items on which the models differ), the difference d solves
    d^2 = K^2 sum((q_s - d^2) / n_s) / S^2: the variance of a paired difference is its mean square minus d^2.
    Miller (2024), arXiv 2411.00640, Sec. 5; for one suite Connett, Smith & McHugh (1987), Stat. in Medicine 6:537.

    Args:
        sizes: items of each suite.
        changed: q_s of each suite, in [0, 1].
        confidence: level of the intervals.
        power: probability that the interval excludes 0.
    """
    factor = (_quantile(confidence) + NormalDist().inv_cdf(power)) ** 2 / len(sizes) ** 2
    spread = math.fsum(share / size for share, size in zip(changed, sizes, strict=True))
    return math.sqrt(factor * spread / (1 + factor * math.fsum(1 / size for size in sizes)))


def detected(difference: Difference, *, confidence: float = 0.95, power: float = POWER) -> float:
    """Return the smallest true difference that a comparison as noisy as this one shows with probability `power`.

    It is half of the interval's width times (z(confidence) + z(power)) / z(confidence), whatever made the interval.
    """
    more = NormalDist().inv_cdf(power) / _quantile(confidence)
    return (difference.high - difference.low) / 2 * (1 + more)


def least_gain(sizes: Sequence[int], margin: float, *, confidence: float = 0.95) -> float | None:
    """Return the smallest average difference that proves a model to be less than `margin` worse, if it loses no item.

    This is the least for any model, because each lost item raises it. Gains are spread over the suites by their size.
    None means that winning every item would not prove it. 0 means that an equal model proves it.

    Args:
        sizes: items of each suite.
        margin: at least 0; with 0 the question is whether the model is better.
        confidence: level of the intervals, which are Tango's and MOVER's as in `evaluation.statistics`.
    """

    def gain(share: float) -> Estimate:
        return macro_average([_won(math.ceil(share * size), size, confidence) for size in sizes])

    largest = max(sizes)
    enough = (won for won in range(largest + 1) if gain(won / largest).low > -margin)
    won = next(enough, None)
    return None if won is None else gain(won / largest).value


def items_to_show_equal(margin: float, *, confidence: float = 0.95) -> int:
    """Return how many items of one suite prove by their agreement alone that a model is less than `margin` worse.

    Where no item differs, Tango's interval is +-z^2 / (n + z^2).
    """
    z_squared = _quantile(confidence) ** 2
    return math.floor(z_squared * (1 - margin) / margin) + 1


def highest_floor(sizes: Sequence[int], *, confidence: float = 0.95) -> float:
    """Return the lower limit of a perfect score: no model is shown to score more on these items."""
    perfect = [Estimate(1.0, *wilson_interval(size, size, confidence), size, "Wilson") for size in sizes]
    return macro_average(perfect).low


def _quantile(confidence: float) -> float:
    return NormalDist().inv_cdf((1 + confidence) / 2)


def _won(wins: int, size: int, confidence: float) -> Difference:
    low, high = tango_interval(wins, 0, size, confidence)
    return Difference(wins / size, low, high, size, "Tango", wins, 0, 1.0, "")
