"""Contract: a search asks as many items as successive rejects wants before it drops anybody, and the same of everybody.

It takes a fraction of what all items of all candidates take, and chooses nearly as well.
"""

from fractions import Fraction

import pytest

from benchmarks.search import regrets
from evaluation.search.schedule import SHARES, affordable, answers, left, slices


@pytest.mark.parametrize("candidates", [2, 3, 4, 7, 8, 9, 15, 16, 17, 40, 100])
def test_nobody_is_dropped_before_successive_rejects_would(candidates: int) -> None:
    # Audibert, Bubeck and Munos: phase k has `candidates` + 1 - k arms and n_k = C / (candidates + 1 - k) pulls of each
    # in all; with a budget for which the last phase pulls every one of N = 1 items, C = 2.
    for phase in range(1, candidates):
        arms = candidates + 1 - phase
        seen = max(share for share, count in zip(SHARES, left(candidates), strict=True) if count >= arms)
        assert seen >= min(Fraction(1), Fraction(2, arms)) or arms > 2 / SHARES[0]


def test_the_last_ones_see_everything_and_everyone_the_first_items() -> None:
    assert left(40)[0] == 40
    assert left(40)[-1] >= 2
    assert left(2) == [2] * len(SHARES)


@pytest.mark.parametrize("items", [1, 2, 3, 7, 8, 200, 999])
def test_looks_add_up_to_all_items_and_never_overlap(items: int) -> None:
    asked = [item for start, end in slices(items) for item in range(start, end)]
    assert asked == list(range(items))
    assert slices(items)[0][1] >= 1


def test_the_answers_are_counted() -> None:
    sizes = [200, 300]
    counted = sum(
        end - start
        for size in sizes
        for count, (start, end) in zip(left(9), slices(size), strict=True)
        for _ in range(count)
    )
    assert answers(9, sizes) == counted
    assert answers(40, [600]) < 0.26 * 40 * 600


def test_a_budget_of_answers_buys_the_most_candidates_that_it_can() -> None:
    sizes = [200, 200]
    count = affordable(2500, sizes, most=40)
    assert answers(count, sizes) <= 2500 < answers(count + 1, sizes)
    assert affordable(10**9, sizes, most=40) == 40
    assert affordable(100, sizes, most=40) == 0


def test_the_schedule_regrets_less_than_other_ways_to_spend_the_same_answers() -> None:
    regret = {way: values.mean() for way, values in regrets(40, 600, worlds=60).items()}
    assert regret["schedule"] < 0.7 * regret["equal shares"]
    assert regret["schedule"] < 0.3 * regret["every item, fewer candidates"]
    assert regret["schedule"] < regret["every item, all candidates"] + 0.15  # points, at a quarter of the answers
