"""How often intervals claim too much, and how wide they are, with related items: python -m benchmarks.intervals.

Two models are drawn from known rates (tests/evaluation/simulated.py), and the interval of their difference is compared
with the truth: "too high" is how often the lower limit lies above it, which is a gate that promotes too easily, and
"too low" how often the upper one lies below it. Both should be 2.5 %.
"""

import argparse
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from scipy import stats

from evaluation.statistics.clustered import clustered_t, design
from evaluation.statistics.comparing import paired_difference
from tests.evaluation.simulated import Scores, Truth

Limits = tuple[float, float]
Clusters = npt.NDArray[np.intp]

TRUTHS = [
    Truth(0.1, 0.1, clusters, size, correlation)
    for clusters, size in ((4, 15), (8, 8), (16, 1), (16, 20), (30, 10), (60, 5))
    for correlation in (0.0, 0.3)
]
TRUTHS += [Truth(0.02, 0.04, clusters, size, 0.3) for clusters, size in ((8, 8), (16, 20), (60, 5))]
TRUTHS += [Truth(0.3, 0.1, 16, 1, 0.4, answers=5), Truth(0.1, 0.1, 100, 1, 0.4, answers=5)]


def main() -> None:
    """Simulate and print a table in markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=2000)
    draws = parser.parse_args().draws
    print(f"| clusters | items of each | answers | wins, losses | correlation | {' | '.join(METHODS)} |")
    print(f"|{'---|' * (5 + len(METHODS))}")
    for truth in TRUTHS:
        print(_row(truth, draws), flush=True)


def _row(truth: Truth, draws: int) -> str:
    rng = np.random.default_rng(1)
    drawn = [truth.draw(rng) for _ in range(draws)]
    cells = []
    for method in METHODS.values():
        low, high = np.array([method(*each) for each in drawn]).T
        too_high, too_low = (low > truth.difference).mean(), (high < truth.difference).mean()
        cells.append(f"{100 * too_high:.1f}, {100 * too_low:.1f}, ±{50 * (high - low).mean():.0f}")
    about = f"{truth.clusters} | {truth.size} | {truth.answers} | {truth.wins}, {truth.losses} | {truth.correlation}"
    return f"| {about} | {' | '.join(cells)} |"


def _independent(ours: Scores, theirs: Scores, _: Clusters) -> Limits:
    found = paired_difference(ours.ravel(), theirs.ravel())
    return found.low, found.high


def _effective(ours: Scores, theirs: Scores, clusters: Clusters) -> Limits:
    found = paired_difference(ours, theirs, clusters=clusters.tolist())
    return found.low, found.high


def _t(ours: Scores, theirs: Scores, clusters: Clusters) -> Limits:
    values = (ours - theirs).ravel()
    codes = clusters.repeat(values.size // len(clusters))
    return clustered_t(values, design(values, codes, usual=0.0), 0.95, lowest=-1.0)


def _bootstrap(ours: Scores, theirs: Scores, clusters: Clusters) -> Limits:
    """Percentiles of the mean over resampled whole clusters."""
    values = (ours - theirs).reshape(len(clusters), -1)
    sums, sizes = np.bincount(clusters, values.sum(axis=1)), np.bincount(clusters) * values.shape[1]
    chosen = np.random.default_rng(1).integers(len(sums), size=(999, len(sums)))
    low, high = np.quantile(sums[chosen].sum(axis=1) / sizes[chosen].sum(axis=1), stats.norm.cdf([-1.96, 1.96]))
    return float(low), float(high)


METHODS: dict[str, Callable[[Scores, Scores, Clusters], Limits]] = {
    "as if independent": _independent,
    "bootstrap of clusters": _bootstrap,
    "t between clusters": _t,
    "Tango, clustered": _effective,
}

if __name__ == "__main__":
    main()
