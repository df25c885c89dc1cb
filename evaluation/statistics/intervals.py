"""Confidence intervals of a mean: score intervals for 0/1 scores, the BCa bootstrap, and MOVER for averages."""

import math
from collections.abc import Sequence

import numpy as np
import scipy  # imports its modules when they are used
from numpy.typing import ArrayLike

from evaluation.statistics.estimates import Estimate, Scores

RESAMPLES = 9999
_ELEMENTS_AT_ONCE = 4_000_000  # bounds the memory of a block of resamples to 32 MB an array


def wilson_interval(successes: float, n: float, confidence: float = 0.95) -> tuple[float, float]:
    """Return Wilson's score interval of a proportion: all p with |p^ - p| <= z sqrt(p (1 - p) / n).

    Wilson (1927), JASA 22:209. The numbers need not be whole: `n` may be an effective number of items.
    """
    z = normal_quantile(confidence)
    share, spread = successes / n, z * z / n
    middle = (share + spread / 2) / (1 + spread)
    half = math.sqrt(max(spread * share * (1 - share) + spread * spread / 4, 0.0)) / (1 + spread)
    low = 0.0 if successes == 0 else middle - half
    return low, (1.0 if successes == n else middle + half)


def tango_interval(wins: float, losses: float, n: float, confidence: float = 0.95) -> tuple[float, float]:
    """Return Tango's score interval of a difference of paired proportions, from `n` pairs of which two kinds differ.

    The numbers need not be whole: they may be those of an effective number of items.

    All delta with |wins - losses - n delta| <= z sqrt(n (2 q + delta (1 - delta))), where q is the most likely
    probability of a loss given delta: q = (sqrt(B^2 - 4 A C) - B) / (2 A), A = 2 n,
    B = (2 n - wins + losses) delta - wins - losses, C = -losses delta (1 - delta).
    Tango (1998), Statistics in Medicine 17:891, eqs. 10 to 14. Without any differing pair it is +-z^2 / (n + z^2).
    """
    z = normal_quantile(confidence)

    def excess(delta: float, side: float) -> float:
        linear = (2 * n - wins + losses) * delta - wins - losses
        constant = -losses * delta * (1 - delta)
        loss_rate = (math.sqrt(max(linear * linear - 8 * n * constant, 0.0)) - linear) / (4 * n)
        variance = max(n * (2 * loss_rate + delta * (1 - delta)), 0.0)
        return wins - losses - n * delta + side * z * math.sqrt(variance)

    observed = (wins - losses) / n
    # One root lies on either side of the observed difference; a hair is left out because that is a root of its own when
    # the variance vanishes there (no pair differs, or all do).
    low = -1.0 if losses == n else scipy.optimize.brentq(excess, -1.0, observed - 1e-12, args=(-1.0,), xtol=1e-13)
    high = 1.0 if wins == n else scipy.optimize.brentq(excess, observed + 1e-12, 1.0, args=(1.0,), xtol=1e-13)
    return float(low), float(high)


def bca_interval(values: ArrayLike, confidence: float = 0.95, *, seed: int = 0) -> tuple[float, float]:
    """Return the bias-corrected and accelerated bootstrap interval of the mean of `values`, shape (n,).

    Limits are the Phi(z0 + (z0 + z) / (1 - a (z0 + z))) quantiles of 9,999 resampled means for z = -+Phi^-1(1/2 +
    confidence / 2); z0 = Phi^-1(share of resampled means below the mean, ties half); for a mean the jackknife gives
    a = sum(d^3) / (6 sum(d^2)^1.5) with d = values - mean. Efron (1987), JASA 82:171, eqs. 2.3, 6.6.
    All values equal: that value, twice.
    """
    sample = np.asarray(values, dtype=np.float64)
    deviations = sample - sample.mean()
    largest = float(np.abs(deviations).max())
    if largest == 0.0:
        return float(sample[0]), float(sample[0])
    scaled = deviations / largest  # else the squares and cubes of tiny differences would be 0
    means = _resampled_means(sample, np.random.default_rng(seed))
    below = ((means < sample.mean()).mean() + (means <= sample.mean()).mean()) / 2
    bias = scipy.stats.norm.ppf(np.clip(below, 1 / RESAMPLES, 1 - 1 / RESAMPLES))
    acceleration = float((scaled**3).sum()) / (6 * float((scaled**2).sum()) ** 1.5)
    z = normal_quantile(confidence)
    shifted = bias + np.array([-z, z])
    low, high = np.quantile(means, scipy.stats.norm.cdf(bias + shifted / (1 - acceleration * shifted)))
    return float(low), float(high)


def mover_interval(parts: Sequence[Estimate]) -> tuple[float, float]:
    """Return the interval of the equally weighted average of independent estimates from their own intervals.

    low = m - sqrt(sum((m_s - low_s)^2)) / S and high = m + sqrt(sum((high_s - m_s)^2)) / S for S parts: the variance
    near each limit is recovered from the parts' limits. Zou & Donner (2008), Statistics in Medicine 27:1693.
    """
    value = math.fsum(part.value for part in parts) / len(parts)
    below = math.sqrt(math.fsum((part.value - part.low) ** 2 for part in parts)) / len(parts)
    above = math.sqrt(math.fsum((part.high - part.value) ** 2 for part in parts)) / len(parts)
    return value - below, value + above


def normal_quantile(confidence: float) -> float:
    """Return the z of a two-sided interval."""
    return float(scipy.stats.norm.ppf((1 + confidence) / 2))


def blocks(n: int) -> list[int]:
    """Return RESAMPLES rows of `n` elements as blocks that fit in memory."""
    rows = max(1, _ELEMENTS_AT_ONCE // n)
    return [min(rows, RESAMPLES - start) for start in range(0, RESAMPLES, rows)]


def _resampled_means(values: Scores, rng: np.random.Generator) -> Scores:
    n = len(values)
    index = np.uint16 if n <= 1 << 16 else np.uint64  # half the time of the draws goes into the bits of the indices
    return np.concatenate(
        [values.take(rng.integers(n, size=(rows, n), dtype=index)).mean(axis=1) for rows in blocks(n)]
    )
