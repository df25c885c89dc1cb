"""Tests of no difference, and their adjustment where there are several."""

from collections.abc import Sequence

import numpy as np
import scipy  # imports its modules when they are used
from numpy.typing import ArrayLike

from evaluation.statistics.estimates import Scores
from evaluation.statistics.intervals import RESAMPLES, blocks


def mcnemar_p(wins: int, losses: int) -> float:
    """Return the two-sided exact p-value of McNemar's test: wins ~ Binomial(wins + losses, 1/2)."""
    if wins + losses == 0:
        return 1.0
    return float(scipy.stats.binomtest(wins, wins + losses, 0.5).pvalue)


def sign_flip_p(suites: Sequence[ArrayLike], *, seed: int = 0) -> float:
    """Return the two-sided Monte Carlo p-value of the suites' average difference when each value's sign is random.

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


def _sign_flipped_means(values: Scores, rng: np.random.Generator) -> Scores:
    """Means of `values` under random signs: 2 times the sum of those that keep theirs, minus the sum of all, over n."""
    n = len(values)
    draws = (np.frombuffer(rng.bytes(rows * -(-n // 8)), np.uint8).reshape(rows, -1) for rows in blocks(n))
    kept = np.concatenate([np.unpackbits(bits, axis=1, count=n) @ values for bits in draws])
    means: Scores = (2 * kept - values.sum()) / n
    return means
