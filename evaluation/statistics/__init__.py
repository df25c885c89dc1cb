"""Intervals and tests for the scores of models on the same items; everything is float64 and repeatable.

Scores lie in [0, 1] and are paired by item. For scores that are all 0 or 1 the intervals are score intervals
(Wilson for a mean, Tango for a paired difference): unlike the bootstrap they hold their level near 0 and 1 and do not
shrink to a point when every item agrees. Other scores get the BCa bootstrap. Related items, and several answers to one
item, count for as many independent scores as tell as much. Averages over suites combine the suites' own intervals by
MOVER, so that a small or saturated suite keeps its full uncertainty.

Random draws occur only for scores that are not 0/1, for related ones, or for averages over suites of unequal size;
their seeds are made from names by `resampling_seed`.
"""

from evaluation.statistics.clustered import FEW_CLUSTERS, told_by_clusters
from evaluation.statistics.comparing import macro_average, macro_difference, mean, paired_difference
from evaluation.statistics.crossed import crossed_mean
from evaluation.statistics.estimates import Difference, Estimate, resampling_seed
from evaluation.statistics.hypotheses import holm, mcnemar_p, sign_flip_p
from evaluation.statistics.intervals import RESAMPLES, bca_interval, mover_interval, tango_interval, wilson_interval
from evaluation.statistics.sample import Clusters

__all__ = [
    "FEW_CLUSTERS",
    "RESAMPLES",
    "Clusters",
    "Difference",
    "Estimate",
    "bca_interval",
    "crossed_mean",
    "holm",
    "macro_average",
    "macro_difference",
    "mcnemar_p",
    "mean",
    "mover_interval",
    "paired_difference",
    "resampling_seed",
    "sign_flip_p",
    "tango_interval",
    "told_by_clusters",
    "wilson_interval",
]
