"""Intervals and tests for the scores of models on the same items; everything is float64 and repeatable.

Scores lie in [0, 1] and are paired by item. For scores that are all 0 or 1 the intervals are score intervals
(Wilson for a mean, Tango for a paired difference): unlike the bootstrap they hold their level near 0 and 1 and do not
shrink to a point when every item agrees. Other scores get the BCa bootstrap. Averages over suites combine the suites'
own intervals by MOVER, so that a small or saturated suite keeps its full uncertainty.

Random draws occur only for scores that are not 0/1, or for averages over suites of unequal size; their seeds are made
from names by `resampling_seed`.
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import scipy  # imports its modules when they are used
from numpy.typing import ArrayLike, NDArray

Scores = NDArray[np.float64]

RESAMPLES = 9999
_MCNEMAR = "exact McNemar"
_SIGN_FLIP = "sign-flip permutation"
_ELEMENTS_AT_ONCE = 4_000_000  # bounds the memory of a block of resamples to 32 MB an array


@dataclass(frozen=True)
class Estimate:
    """A mean (or a difference of means) over `n` items, its confidence limits, and the method that gave them."""

    value: float
    low: float
    high: float
    n: int
    method: str

    def to_json(self) -> dict[str, Any]:
        """Return the fields as a JSON object."""
        return asdict(self)


@dataclass(frozen=True)
class Difference(Estimate):
    """Ours minus theirs on the same items: how often each scored higher, and the two-sided p of no difference."""

    wins: int
    losses: int
    p_value: float
    test: str


def resampling_seed(*names: str) -> int:
    """Return a 64-bit seed that depends on the names and their order alone (SHA-256)."""
    digest = hashlib.sha256(b"".join(len(name).to_bytes(8, "big") + name.encode() for name in names)).digest()
    return int.from_bytes(digest[:8], "big")


def mean(scores: ArrayLike, *, confidence: float = 0.95, seed: int = 0) -> Estimate:
    """Estimate the mean of one suite's scores, shape (n,), in [0, 1]: Wilson if all are 0 or 1, else BCa."""
    values = _checked(scores)
    if _all_binary(values):
        low, high = wilson_interval(int(values.sum()), len(values), confidence)
        return Estimate(float(values.mean()), low, high, len(values), "Wilson")
    low, high = _bca_or_constant(values, confidence, seed, lowest=0.0)
    return Estimate(float(values.mean()), low, high, len(values), "BCa bootstrap")


def paired_difference(ours: ArrayLike, theirs: ArrayLike, *, confidence: float = 0.95, seed: int = 0) -> Difference:
    """Estimate mean(ours - theirs) over one suite's items; both have shape (n,) and the same order of items.

    For 0/1 scores: Tango's interval and McNemar's exact test; else the BCa bootstrap over items and the sign-flip test.
    """
    our_scores, their_scores = _checked(ours), _checked(theirs)
    if our_scores.shape != their_scores.shape:
        raise ValueError(f"paired scores need the same items, not {len(our_scores)} and {len(their_scores)}")
    differences = our_scores - their_scores
    wins, losses = int((differences > 0).sum()), int((differences < 0).sum())
    if _all_binary(our_scores) and _all_binary(their_scores):
        low, high = tango_interval(wins, losses, len(differences), confidence)
        method, p_value, test = "Tango", mcnemar_p(wins, losses), _MCNEMAR
    else:
        low, high = _bca_or_constant(differences, confidence, seed, lowest=-1.0)
        method, p_value, test = "BCa bootstrap", sign_flip_p([differences], seed=seed), _SIGN_FLIP
    return Difference(float(differences.mean()), low, high, len(differences), method, wins, losses, p_value, test)


def macro_average(suites: Sequence[Estimate]) -> Estimate:
    """Average the suites' estimates with equal weight, whatever their sizes; the interval is MOVER's.

    A single suite keeps its own interval. All intervals must have the same confidence, which is then the average's too.
    """
    if len(suites) == 1:
        return suites[0]
    low, high = mover_interval(suites)
    value = math.fsum(suite.value for suite in suites) / len(suites)
    return Estimate(value, low, high, sum(suite.n for suite in suites), "MOVER")


def macro_difference(
    suites: Sequence[Difference], ours: Sequence[ArrayLike], theirs: Sequence[ArrayLike], *, seed: int = 0
) -> Difference:
    """Average the suites' paired differences with equal weight; suite s is of the scores `ours[s]` and `theirs[s]`.

    The interval is MOVER's over the suites' own intervals. The p-value tests the hypothesis that on every item of every
    suite the two models are exchangeable: the sign-flip test of the average, which for 0/1 scores and suites of equal
    size is McNemar's exact test on the totals.
    """
    if len(suites) == 1:
        return suites[0]
    average = macro_average(suites)
    wins, losses = sum(suite.wins for suite in suites), sum(suite.losses for suite in suites)
    if all(suite.test == _MCNEMAR for suite in suites) and len({suite.n for suite in suites}) == 1:
        p_value, test = mcnemar_p(wins, losses), _MCNEMAR
    else:
        differences = [_checked(our) - _checked(their) for our, their in zip(ours, theirs, strict=True)]
        p_value, test = sign_flip_p(differences, seed=seed), _SIGN_FLIP
    return Difference(average.value, average.low, average.high, average.n, average.method, wins, losses, p_value, test)


def wilson_interval(successes: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return Wilson's score interval of a proportion: all p with |p^ - p| <= z sqrt(p (1 - p) / n).

    Wilson (1927), JASA 22:209, as `scipy.stats.binomtest(...).proportion_ci(method="wilson")` computes it.
    """
    interval = scipy.stats.binomtest(successes, n).proportion_ci(confidence, method="wilson")
    return float(interval.low), float(interval.high)


def tango_interval(wins: int, losses: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return Tango's score interval of a difference of paired proportions, from `n` pairs of which two kinds differ.

    All delta with |wins - losses - n delta| <= z sqrt(n (2 q + delta (1 - delta))), where q is the most likely
    probability of a loss given delta: q = (sqrt(B^2 - 4 A C) - B) / (2 A), A = 2 n,
    B = (2 n - wins + losses) delta - wins - losses, C = -losses delta (1 - delta).
    Tango (1998), Statistics in Medicine 17:891, eqs. 10 to 14. Without any differing pair it is +-z^2 / (n + z^2).
    """
    z = _normal_quantile(confidence)

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
    z = _normal_quantile(confidence)
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


def mcnemar_p(wins: int, losses: int) -> float:
    """Return the two-sided exact p-value of McNemar's test: wins ~ Binomial(wins + losses, 1/2)."""
    if wins + losses == 0:
        return 1.0
    return float(scipy.stats.binomtest(wins, wins + losses, 0.5).pvalue)


def sign_flip_p(suites: Sequence[ArrayLike], *, seed: int = 0) -> float:
    """Return the two-sided Monte Carlo p-value of the suites' average difference when each item's sign is random.

    p = (1 + #{|T*| >= |T|}) / (1 + 9,999) with T the average over suites of mean(differences): never zero, and valid at
    any number of draws. Phipson & Smyth (2010), Stat. Appl. Genet. Mol. Biol. 9:39, eq. 2.
    """
    differences = [np.asarray(suite, dtype=np.float64) for suite in suites]
    rng = np.random.default_rng(seed)
    observed = abs(sum(float(suite.mean()) for suite in differences))
    flipped = sum(_sign_flipped_means(suite, rng) for suite in differences)
    # Sums of the same numbers in a different order differ in the last bits; equal outcomes must count as equal.
    as_extreme = int((np.abs(flipped) >= observed - 1e-12).sum())
    return (1 + as_extreme) / (1 + RESAMPLES)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return Holm's step-down adjusted p-values, in the order given: max over j <= i of min(1, (m - j + 1) p_(j)).

    Rejecting where the adjusted value is at most alpha keeps the chance of any false rejection in the family at alpha
    whatever the dependence. Holm (1979), Scandinavian Journal of Statistics 6:65.
    """
    adjusted = [0.0] * len(p_values)
    running = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = running
    return adjusted


def _checked(scores: ArrayLike) -> Scores:
    values = np.asarray(scores, dtype=np.float64)
    if values.ndim != 1 or len(values) == 0:
        raise ValueError(f"scores need the shape (n,) with n >= 1, not {values.shape}")
    if not ((values >= 0) & (values <= 1)).all():
        raise ValueError("scores must lie in [0, 1]")
    return values


def _all_binary(values: Scores) -> bool:
    return bool(((values == 0) | (values == 1)).all())


def _normal_quantile(confidence: float) -> float:
    return float(scipy.stats.norm.ppf((1 + confidence) / 2))


def _bca_or_constant(values: Scores, confidence: float, seed: int, *, lowest: float) -> tuple[float, float]:
    """BCa; where all values agree, a resample cannot differ, so allow for the values that n draws may have missed.

    Up to a share z^2 / (n + z^2) of the items may behave otherwise unseen (Wilson's upper limit of 0 in n), and each
    may lie anywhere in [lowest, 1].
    """
    if (values == values[0]).all():
        value, unseen = float(values[0]), wilson_interval(0, len(values), confidence)[1]
        return value - unseen * (value - lowest), value + unseen * (1.0 - value)
    return bca_interval(values, confidence, seed=seed)


def _resampled_means(values: Scores, rng: np.random.Generator) -> Scores:
    n = len(values)
    index = np.uint16 if n <= 1 << 16 else np.uint64  # half the time of the draws goes into the bits of the indices
    return np.concatenate(
        [values.take(rng.integers(n, size=(rows, n), dtype=index)).mean(axis=1) for rows in _blocks(n)]
    )


def _sign_flipped_means(values: Scores, rng: np.random.Generator) -> Scores:
    """Means of `values` under random signs: 2 times the sum of those that keep theirs, minus the sum of all, over n."""
    n = len(values)
    draws = (np.frombuffer(rng.bytes(rows * -(-n // 8)), np.uint8).reshape(rows, -1) for rows in _blocks(n))
    kept = np.concatenate([np.unpackbits(bits, axis=1, count=n) @ values for bits in draws])
    means: Scores = (2 * kept - values.sum()) / n
    return means


def _blocks(n: int) -> list[int]:
    """Split RESAMPLES rows of `n` elements into blocks that fit in memory."""
    rows = max(1, _ELEMENTS_AT_ONCE // n)
    return [min(rows, RESAMPLES - start) for start in range(0, RESAMPLES, rows)]
