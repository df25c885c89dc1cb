"""Contract: what is promised before a run holds in it: differences are detected as often as promised."""

from functools import cache

import numpy as np
import pytest

from evaluation.power import Items, detectable_difference, detected, highest_floor, items_to_show_equal, least_gain
from evaluation.statistics import paired_difference, tango_interval, wilson_interval


@cache
def interval(wins: int, losses: int, size: int) -> tuple[float, float]:
    return tango_interval(wins, losses, size)


@pytest.mark.parametrize(("sizes", "changed"), [([300], 0.2), ([120, 120, 120], 0.3), ([100, 400], 0.1)])
def test_a_detectable_difference_is_detected_as_often_as_promised(sizes: list[int], changed: float) -> None:
    difference = detectable_difference([Items(size) for size in sizes], [changed] * len(sizes), power=0.8)
    assert difference is not None
    rng = np.random.default_rng(1)
    shares = [(changed + difference) / 2, (changed - difference) / 2, 1 - changed]
    found = 0
    for _ in range(2000):
        parts = []
        for size in sizes:
            wins, losses, _ = rng.multinomial(size, shares)
            low, high = interval(int(wins), int(losses), size)
            ours = np.repeat([1.0, 0.0, 0.0], [wins, losses, size - wins - losses])
            theirs = np.repeat([0.0, 1.0, 0.0], [wins, losses, size - wins - losses])
            part = paired_difference(ours, theirs) if len(sizes) == 1 else None
            assert part is None or (part.low, part.high) == (low, high)
            parts.append((wins - losses, low, high, size))
        found += _average_low(parts) > 0
    assert found / 2000 == pytest.approx(0.8, abs=0.06)


def _average_low(parts: list[tuple[int, float, float, int]]) -> float:
    """MOVER's lower limit, from its definition."""
    below = sum((difference / size - low) ** 2 for difference, low, _, size in parts) ** 0.5
    return float((sum(difference / size for difference, _, _, size in parts) - below) / len(parts))


def test_more_items_or_fewer_changes_detect_smaller_differences() -> None:
    least = [
        detectable_difference([Items(size)], [changed]) or 1.0 for size, changed in ((400, 0.2), (100, 0.2), (100, 0.1))
    ]
    assert least[0] < least[1] > least[2]
    # The variance of one item's difference is at most its mean square.
    assert least[1] < (1.959964 + 0.841621) * (0.2 / 100) ** 0.5
    # Of 16 items at most 3 differ, which all won would not show anything.
    assert detectable_difference([Items(16)], [0.2]) is None
    assert detectable_difference([Items(1)], [0.1]) is None
    related = detectable_difference([Items(400, (20,) * 20)], [0.2])
    assert related is not None and 2 * least[0] < related < 3 * least[0]


@pytest.mark.parametrize("size", [5, 16, 30, 100, 188, 189, 300])
@pytest.mark.parametrize("margin", [0.0, 0.02, 0.1])
def test_the_least_gain_is_the_first_that_passes(size: int, margin: float) -> None:
    passing = [won for won in range(size + 1) if interval(won, 0, size)[0] > -margin]
    assert least_gain([Items(size)], margin) == (passing[0] / size if passing else None)
    if margin:
        assert (least_gain([Items(size)], margin) == 0.0) == (size >= items_to_show_equal(margin))


def test_no_items_that_a_model_could_win_show_what_two_items_cannot() -> None:
    assert least_gain([Items(2)], 0.0) is None
    assert highest_floor([Items(10), Items(20)]) == pytest.approx(
        1 - (sum((1 - wilson_interval(n, n)[0]) ** 2 for n in (10, 20))) ** 0.5 / 2
    )


def test_a_comparison_detects_what_its_own_noise_allows() -> None:
    rng = np.random.default_rng(2)
    ours, theirs = (rng.random(400) < share for share in (0.55, 0.5))
    difference = paired_difference(ours.astype(float), theirs.astype(float))
    changed = (difference.wins + difference.losses) / difference.n
    assert detected(difference) == pytest.approx(detectable_difference([Items(400)], [changed]), rel=0.03)
    assert detected(paired_difference(np.ones(30), np.ones(30))) > 0.1  # agreement promises nothing
