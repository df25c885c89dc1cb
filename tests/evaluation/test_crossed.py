"""Contract: the interval of a mean over seeds and items holds its level when both are drawn anew, and is repeatable."""

import numpy as np
import pytest

from evaluation.statistics import crossed_mean

DRAWS = 300


@pytest.mark.parametrize(("seeds", "items"), [(0.1, 0.5), (0.0, 0.5), (0.1, 0.0), (0.0, 0.0)])
def test_it_covers_the_truth_where_seeds_and_items_vary(seeds: float, items: float) -> None:
    rng = np.random.default_rng(1)
    missed = 0
    for _ in range(DRAWS):
        of_seed = rng.normal(0.0, seeds, (5, 1))
        suites = [0.2 + of_seed + rng.normal(0, items, (1, 60)) + rng.normal(0, 0.4, (5, 60)) for _ in range(3)]
        found = crossed_mean(suites)
        missed += not found.low <= 0.2 <= found.high
    assert missed / DRAWS < 0.05 + 3 * (0.05 * 0.95 / DRAWS) ** 0.5


def test_items_alone_would_not_cover_it() -> None:
    # What it protects against: five trainings of one recipe differ by more than their items tell.
    rng = np.random.default_rng(2)
    halves, widths = [], []
    for _ in range(50):
        suite = rng.normal(0, 0.2, (5, 1)) + rng.normal(0, 0.4, (5, 60))
        found = crossed_mean([suite])
        widths.append(found.high - found.low)
        halves.append(2 * 1.96 * suite.std() / suite.size**0.5)
    assert np.mean(widths) > 3 * np.mean(halves)


@pytest.mark.parametrize("suites", [[[[1.0, 0.0]]], [[[1.0], [0.0]]], [[[1, 0], [0, 1]], [[1, 0]]]])
def test_it_needs_several_runs_of_the_same_items(suites: list[list[list[float]]]) -> None:
    with pytest.raises(ValueError, match="at least two runs and two items"):
        crossed_mean(suites)
