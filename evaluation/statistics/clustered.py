"""Intervals of a mean of scores that are not independent: related items, and several answers to one item.

Items of one cluster tend to succeed and fail together, so they tell less than as many independent ones. How much less
is measured: the design effect is the variance of the mean between clusters over its variance if every score were
independent. 0/1 scores keep their score intervals, Wilson's and Tango's, for the number of independent scores that
would tell as much; so the interval does not shrink to a point near 0 and 1. Other scores get the interval of Student's
t between clusters. `benchmarks/intervals.py` simulates what these hold; see docs/evaluation.md.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy  # imports its modules when they are used
from numpy.typing import NDArray

from evaluation.statistics.estimates import Scores
from evaluation.statistics.intervals import normal_quantile, wilson_interval

# Where fewer clusters than this differ from the rest, their number says more than their scatter.
FEW_CLUSTERS = 3


@dataclass(frozen=True)
class Design:
    """What clusters make of a mean.

    Attributes:
        clusters: their number C.
        error: standard error of the mean between clusters, sqrt(C / (C - 1) sum(e_c^2)) / n, where e_c is the sum of a
            cluster's deviations from the mean. Cameron & Miller (2015), J. Human Resources 50:317, Sec. II.
        effect: its square over that of n independent scores, at least 1.
        differing: number of clusters with a score other than the usual one.
    """

    clusters: int
    error: float
    effect: float
    differing: int

    def effective(self, n: int, confidence: float) -> float:
        """Return how many independent scores tell as much as these `n`, allowing for the few clusters.

        It is n / effect * (z / t)^2 with t of C - 1 degrees of freedom. Korn & Graubard (1998), Survey Methodology
        24:193. It is C where the scatter between clusters cannot be told, because fewer than three differ.
        """
        if self.differing < FEW_CLUSTERS:
            return float(self.clusters)
        return n / self.effect * told_by_clusters(self.clusters, confidence)

    @property
    def shown(self) -> dict[str, Any]:
        """The fields of an estimate that say what clusters made of it."""
        return {"clusters": self.clusters, "design_effect": self.effect}


def told_by_clusters(clusters: int, confidence: float) -> float:
    """Return (z / t)^2 with t of C - 1 degrees of freedom: what C clusters leave of n scores."""
    return float(normal_quantile(confidence) / _t_quantile(clusters, confidence)) ** 2


def design(values: Scores, clusters: NDArray[np.intp], *, usual: float) -> Design:
    """Return what clusters make of the mean of `values`, shape (n,).

    Args:
        values: the scores, or their differences.
        clusters: number of each value's cluster, shape (n,), from 0.
        usual: the score that most have.

    Raises:
        ValueError: there is only one cluster.
    """
    count = int(clusters.max()) + 1
    if count < 2:
        raise ValueError("one cluster says nothing about others; an interval needs at least two")
    deviations = values - values.mean()
    between = float((np.bincount(clusters, deviations) ** 2).sum()) * count / (count - 1)
    independent = float((deviations**2).sum())
    effect = max(1.0, between / independent) if independent > 0 else 1.0
    differing = int((np.bincount(clusters, values != usual) > 0).sum())
    return Design(count, float(np.sqrt(between)) / len(values), effect, differing)


def clustered_t(values: Scores, found: Design, confidence: float, *, lowest: float) -> tuple[float, float]:
    """Return the interval of the mean of any scores in [lowest, 1] by Student's t, within that range.

    Where fewer than three clusters differ it allows for those that C clusters may have missed: up to a share
    z^2 / (C + z^2) may behave otherwise, by as much as the range allows.
    """
    value = float(values.mean())
    below = above = _t_quantile(found.clusters, confidence) * found.error
    if found.differing < FEW_CLUSTERS:
        unseen = wilson_interval(0, found.clusters, confidence)[1]
        below, above = max(below, unseen * (value - lowest)), max(above, unseen * (1.0 - value))
    return max(lowest, value - below), min(1.0, value + above)


def _t_quantile(clusters: int, confidence: float) -> float:
    return float(scipy.stats.t.ppf((1 + confidence) / 2, clusters - 1))
