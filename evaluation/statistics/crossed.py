"""Means over runs that were asked the same items, such as trainings from several seeds: what would one more give?"""

from collections.abc import Sequence

import numpy as np
import scipy  # imports its modules when they are used
from numpy.typing import ArrayLike

from evaluation.statistics.estimates import Estimate, Scores


def crossed_mean(suites: Sequence[ArrayLike]) -> Estimate:
    """Estimate the mean over runs and items, both taken as drawn from more, with suites of equal weight.

    The variance is that of the mean over runs plus that over items minus what both have counted, the variance if every
    score were independent: Cameron, Gelbach & Miller (2011), J. Business & Economic Statistics 29:238, Eq. 2.1, with
    C / (C - 1) for either. It is at least each of the two. The 95 % limits are Student's t with one degree of freedom
    less than there are runs, so that few runs give wide ones. They are not cut at the ends of the scale.

    Args:
        suites: of each suite the scores, or differences of scores, shape (runs, items).

    Raises:
        ValueError: there are fewer than two runs or items, or the suites have different runs.
    """
    scores = [np.asarray(suite, dtype=np.float64) for suite in suites]
    runs = len(scores[0])
    if runs < 2 or any(suite.ndim != 2 or len(suite) != runs or suite.shape[1] < 2 for suite in scores):
        raise ValueError("every suite needs the same runs, and at least two runs and two items")
    by_run: Scores = np.mean([suite.mean(axis=1) for suite in scores], axis=0)
    value = float(by_run.mean())
    between_runs = float(by_run.var(ddof=1)) / runs
    weight = 1 / len(scores) ** 2
    between_items = weight * sum(float(suite.mean(axis=0).var(ddof=1)) / suite.shape[1] for suite in scores)
    independent = weight * sum(float(suite.var()) / suite.size for suite in scores)
    error = max(between_runs, between_items, between_runs + between_items - independent) ** 0.5
    reach = float(scipy.stats.t.ppf(0.975, runs - 1)) * error
    return Estimate(value, value - reach, value + reach, sum(suite.shape[1] for suite in scores), "t, crossed")
