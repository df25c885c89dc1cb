"""Contract: candidates are ordered by what was asked for, and ties broken alike. Unfinished scores are marked."""

import random

from evaluation.report.searches import search_markdown
from evaluation.search.history import History, Trial, order


def scores(**by_number: tuple[float, float]) -> dict[int, dict[str, float]]:
    return {int(name[1:]): {"average": average, "worst": worst} for name, (average, worst) in by_number.items()}


def test_the_best_average_comes_first_then_the_better_worst_suite_then_the_earlier_trial() -> None:
    found = order(scores(_0=(0.5, 0.2), _1=(0.5, 0.4), _2=(0.7, 0.1), _3=(0.5 + 1e-15, 0.2)), ["average"])
    assert found == [2, 1, 0, 3]


def test_with_several_objectives_a_dominated_candidate_comes_after_those_that_are_not() -> None:
    # 2 has the best average of the three that are behind somebody; 1 and 0 are behind nobody.
    found = order(scores(_0=(0.5, 0.5), _1=(0.9, 0.1), _2=(0.85, 0.05), _3=(0.4, 0.4)), ["average", "worst"])
    assert found == [1, 0, 2, 3]


def trial(number: int, average: float, looks: int) -> Trial:
    first = {"average": average, "worst": average}
    return Trial(
        number=number, method="ram", params={"x": 1}, first=first, suites={"s": average}, items=8 * looks, looks=looks
    )


def test_only_candidates_that_saw_every_item_are_shown_with_a_final_score() -> None:
    trials = [trial(0, 0.5, 4), trial(1, 0.9, 1), trial(2, 0.6, 4)]
    history = History(objectives=["average"], trials=trials, best=2, second=0, answers=72, full=96)
    lines = search_markdown(history).splitlines()
    rows = {line.split(" | ")[0].removeprefix("| "): line for line in lines if line.startswith("| ") and "ram" in line}
    assert list(rows) == ["2", "0", "1"]
    assert "winner" in rows["2"] and "runner-up" in rows["0"] and "dropped" in rows["1"]
    assert "| 8 |" in rows["1"] and "*90.0*" in rows["1"]
    assert "*" not in rows["2"] + rows["0"]
    assert "75%" in lines[0]


def test_trade_offs_are_the_candidates_that_no_other_one_beats_in_both() -> None:
    rng = random.Random(1)
    firsts = [{"average": rng.randrange(20) / 20, "worst": rng.randrange(20) / 20} for _ in range(40)]
    trials = [trial(number, 0.5, 1).model_copy(update={"first": first}) for number, first in enumerate(firsts)]
    history = History(objectives=["average"], trials=trials, best=0, second=1, answers=40, full=320)
    points = {(first["average"], first["worst"]) for first in firsts}
    front = [(x, y) for x, y in points if not any(a >= x and b >= y and (a, b) != (x, y) for a, b in points)]
    found = [(each.first["average"], each.first["worst"]) for each in history.trade_offs]
    assert found == sorted(front, reverse=True) and 1 < len(found) < 40
    assert history.best_so_far == [max(each["average"] for each in firsts[: end + 1]) for end in range(40)]
