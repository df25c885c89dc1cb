"""Scores of two models drawn from known rates, alone or in clusters, and how often intervals claim too much of them."""

from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
from scipy import stats

from evaluation.statistics import Difference, paired_difference, tango_interval

Scores = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Truth:
    """On which share of the items each of two models alone succeeds, and how alike the items of a cluster are.

    Attributes:
        wins, losses: shares of the items that only ours, and only theirs, solves.
        clusters: their number; 0 if items are independent.
        size: items of a cluster, on average; they range from half of it to one and a half.
        correlation: of two items of a cluster; each takes over what is common to its cluster with the root of it.
        answers: to each item.
    """

    wins: float
    losses: float
    clusters: int
    size: int
    correlation: float
    answers: int = 1

    @property
    def difference(self) -> float:
        """Ours minus theirs."""
        return self.wins - self.losses

    def draw(self, rng: np.random.Generator) -> tuple[Scores, Scores, npt.NDArray[np.intp]]:
        """Return ours, theirs and the clusters."""
        sizes = rng.permutation(np.linspace(self.size / 2, 3 * self.size / 2, self.clusters).round().astype(int))
        clusters = np.repeat(np.arange(self.clusters), sizes)
        shares = [self.wins, self.losses, 1 - self.wins - self.losses]
        common = rng.choice(3, size=self.clusters, p=shares)[clusters]
        item = np.where(
            rng.random(len(clusters)) < self.correlation**0.5, common, rng.choice(3, len(clusters), p=shares)
        )
        if self.answers == 1:
            return (item == 0).astype(float), (item == 1).astype(float), clusters
        shape = (len(clusters), self.answers)
        answer = np.where(rng.random(shape) < self.correlation**0.5, item[:, None], rng.choice(3, shape, p=shares))
        return (answer == 0).astype(float), (answer == 1).astype(float), clusters

    def compare(self, rng: np.random.Generator, *, clustered: bool = True) -> Difference:
        """Return the paired difference of scores that are drawn."""
        ours, theirs, clusters = self.draw(rng)
        return paired_difference(ours, theirs, clusters=clusters.tolist() if clustered else None)


@cache
def _limits(wins: int, losses: int, n: int) -> tuple[float, float]:
    return tango_interval(wins, losses, n)


def chance_above(limit: float, n: int, wins: float, losses: float) -> float:
    """Return how often the interval of n independent items lies above `limit`, from every possible outcome."""
    total = 0.0
    for won in range(n + 1):
        lost = np.arange(n + 1 - won)
        outcomes = np.stack([np.full_like(lost, won), lost, n - won - lost], axis=1)
        chances = stats.multinomial.pmf(outcomes, n, [wins, losses, 1 - wins - losses])
        total += sum(
            chance
            for number, chance in zip(lost, chances, strict=True)
            if chance > 1e-9 and _limits(won, int(number), n)[0] > limit
        )
    return total
