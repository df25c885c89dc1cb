"""Means of one suite's scores, paired differences of two models, and their averages over suites."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from evaluation.statistics.clustered import Design, clustered_t
from evaluation.statistics.estimates import Difference, Estimate, Scores
from evaluation.statistics.hypotheses import mcnemar_p, sign_flip_p
from evaluation.statistics.intervals import bca_interval, mover_interval, tango_interval, wilson_interval
from evaluation.statistics.sample import NOISE, Clusters, Sample, checked, is_binary, without_noise

_MCNEMAR = "exact McNemar"
_SIGN_FLIP = "sign-flip permutation"
_CLUSTER_FLIP = "sign-flip permutation of clusters"


def mean(scores: ArrayLike, *, clusters: Clusters | None = None, confidence: float = 0.95, seed: int = 0) -> Estimate:
    """Estimate the mean of one suite's scores in [0, 1].

    The interval is Wilson's if all scores are 0 or 1, else BCa; for related ones see `evaluation.statistics.clustered`.

    Args:
        scores: shape (n,), or (n, K) for K answers to each item.
        clusters: the cluster of each item; None where items are independent. The answers to one item are a cluster.
        confidence: level of the interval.
        seed: of the bootstrap.
    """
    sample = Sample.of(checked(scores), clusters)
    found = sample.design(usual=float(np.median(sample.values)))
    value = float(sample.values.mean())
    if is_binary(sample.values):
        n = sample.effective(found, confidence)
        limits = wilson_interval(float(sample.values.sum()) * (n / len(sample.values)), n, confidence)
        method = "Wilson"
    else:
        limits, method = _limits(sample, found, confidence, seed, lowest=0.0)
    return Estimate(value, *limits, sample.items, _named(method, found), **(found.shown if found else {}))


def paired_difference(
    ours: ArrayLike,
    theirs: ArrayLike,
    *,
    clusters: Clusters | None = None,
    confidence: float = 0.95,
    seed: int = 0,
) -> Difference:
    """Estimate mean(ours - theirs) over one suite's items; both have the same shape and order of items.

    For 0/1 scores: Tango's interval and McNemar's exact test; else the BCa bootstrap over items and the sign-flip test.
    For related scores the signs of whole clusters flip; `evaluation.statistics.clustered` has their intervals. The
    arguments are those of `mean`.
    """
    sample = Sample.of_differences(ours, theirs, clusters)
    found = sample.design(usual=0.0)
    won, lost = int((sample.values > 0).sum()), int((sample.values < 0).sum())
    binary = is_binary(checked(ours)) and is_binary(checked(theirs))
    if binary:
        n = sample.effective(found, confidence)
        scale = n / len(sample.values)
        limits, method = tango_interval(won * scale, lost * scale, n, confidence), "Tango"
    else:
        limits, method = _limits(sample, found, confidence, seed, lowest=-1.0)
    by_item = without_noise(sample.values.reshape(sample.items, -1).sum(axis=1))
    wins, losses = int((by_item > 0).sum()), int((by_item < 0).sum())
    test = _CLUSTER_FLIP if found else _MCNEMAR if binary else _SIGN_FLIP
    p_value = mcnemar_p(wins, losses) if test == _MCNEMAR else sign_flip_p([sample.exchangeable], seed=seed)
    return Difference(
        float(sample.values.mean()),
        *limits,
        sample.items,
        _named(method, found),
        wins,
        losses,
        p_value,
        test,
        **(found.shown if found else {}),
    )


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
    suites: Sequence[Difference],
    ours: Sequence[ArrayLike],
    theirs: Sequence[ArrayLike],
    *,
    clusters: Sequence[Clusters | None] | None = None,
    seed: int = 0,
) -> Difference:
    """Average the suites' paired differences with equal weight; suite s is of the scores `ours[s]` and `theirs[s]`.

    The interval is MOVER's over the suites' own intervals. The p-value tests the hypothesis that on every item (or
    cluster) of every suite the two models are exchangeable: the sign-flip test of the average, which for independent
    0/1 scores and suites of equal size is McNemar's exact test on the totals.
    """
    if len(suites) == 1:
        return suites[0]
    average = macro_average(suites)
    wins, losses = sum(suite.wins for suite in suites), sum(suite.losses for suite in suites)
    tests = {suite.test for suite in suites}
    if tests == {_MCNEMAR} and len({suite.n for suite in suites}) == 1:
        p_value, test = mcnemar_p(wins, losses), _MCNEMAR
    else:
        grouped = zip(ours, theirs, clusters or [None] * len(suites), strict=True)
        units = [Sample.of_differences(our, their, own).exchangeable for our, their, own in grouped]
        p_value, test = sign_flip_p(units, seed=seed), _CLUSTER_FLIP if _CLUSTER_FLIP in tests else _SIGN_FLIP
    return Difference(average.value, average.low, average.high, average.n, average.method, wins, losses, p_value, test)


def _limits(
    sample: Sample, found: Design | None, confidence: float, seed: int, *, lowest: float
) -> tuple[tuple[float, float], str]:
    """Return the interval of the mean of any scores, and its name."""
    if found is not None:
        return clustered_t(sample.values, found, confidence, lowest=lowest), "t"
    return _bca_or_constant(sample.values, confidence, seed, lowest=lowest), "BCa bootstrap"


def _named(method: str, found: Design | None) -> str:
    return f"{method}, clustered" if found else method


def _bca_or_constant(values: Scores, confidence: float, seed: int, *, lowest: float) -> tuple[float, float]:
    """BCa; where all values agree, a resample cannot differ, so allow for the values that n draws may have missed.

    Up to a share z^2 / (n + z^2) of the items may behave otherwise unseen (Wilson's upper limit of 0 in n), and each
    may lie anywhere in [lowest, 1].
    """
    if np.ptp(values) < NOISE:
        value, unseen = float(values[0]), wilson_interval(0, len(values), confidence)[1]
        return value - unseen * (value - lowest), value + unseen * (1.0 - value)
    return bca_interval(values, confidence, seed=seed)
