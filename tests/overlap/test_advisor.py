"""Contract: advice follows the most similar measured runs, says when none is, and is printed with its record."""

from pathlib import Path

import pytest

from rammerge.overlap import advisor
from rammerge.overlap.advisor import Features, Record, Run, advise

SPARSE = Features(density=0.1, shared=0.1, by_chance=0.1, cosine=0.0, same_sign=0.5)
COINCIDING = Features(density=0.4, shared=0.95, by_chance=0.6, cosine=0.1, same_sign=0.5)
RUNS = [
    *(Run(f"sparse-{n}", SPARSE, {"ram": 90.0 + n, "sum": 80.0, "mean": 50.0}) for n in range(3)),
    *(Run(f"coinciding-{n}", COINCIDING, {"ram": 60.0, "sum": 88.0 + n, "mean": 58.0}) for n in range(3)),
]


@pytest.mark.parametrize(("features", "best", "group"), [(SPARSE, "ram", "sparse"), (COINCIDING, "sum", "coinciding")])
def test_the_winner_of_similar_runs_is_likely_to_win(features: Features, best: str, group: str) -> None:
    advice = advise(features, RUNS)
    assert (advice.best, advice.worst, advice.far) == (best, "mean", False)
    assert all(name.startswith(group) for name in advice.like)
    assert best in advice.sentence()


def test_what_makes_no_difference_is_told_as_such() -> None:
    run = Run("one", SPARSE, {"a": 80.0, "b": 80.4, "c": 79.9, "d": 20.0})
    advice = advise(SPARSE, [run])
    assert (advice.best, advice.close, advice.worst) == ("b", ("a", "c"), "d")
    assert advice.behind == pytest.approx(60.4)


def test_agents_like_none_that_were_measured_get_a_guess() -> None:
    advice = advise(Features(density=1.0, shared=1.0, by_chance=1.0, cosine=0.9, same_sign=1.0), RUNS)
    assert advice.far
    assert "this is a guess" in advice.sentence()
    assert "counts the common part twice" in advice.why


def test_a_poor_record_reads_as_one() -> None:
    said = Record("seed", runs=15, hits=2, losers=1, regret=7.25, always={"task_arithmetic": 1.0}).sentence()
    assert "2 hits and 13 misses in 15 runs" in said
    assert "7.2 points below the best" in said
    assert "1.0 for always task_arithmetic" in said
    assert "among the last 3 in 1" in said


def test_the_shipped_record_is_of_the_shipped_runs_and_names_no_method_that_is_gone() -> None:
    from rammerge.rules.listing import list_methods

    runs = advisor.measured_runs()
    assert runs
    assert {name for run in runs for name in run.scores} <= set(list_methods())
    assert {record.runs for record in advisor.records()} <= set(range(1, len(runs) + 1))
    page = Path("docs/results.md").read_text("utf-8")
    assert all(run.name in page for run in runs)
    assert all(record.sentence()[1:] in page for record in advisor.records())
