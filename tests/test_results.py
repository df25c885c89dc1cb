"""Contract: the page of results is what its data say, nothing on it was chosen on test, and its data survive a file."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.results.advising import judge, regret, write_advisor
from benchmarks.results.analysis import difference, lines, tuned, untuned
from benchmarks.results.data import Model, Run, read_runs, write_runs
from benchmarks.results.entries import FOUND, MORE, UNTUNED
from benchmarks.results.page import write_page
from rammerge.overlap.advisor import Features

DATA = Path("docs/results.json")
ADDING = ("task_arithmetic", "ties")


def planted(seed: int, group: str) -> Run:
    """A run in which the methods that add win under `sgd`, and RAM+ elsewhere; MORE is better on validation alone."""
    rng = np.random.default_rng([seed, len(group)])
    models = [_model("base", "base", "", 0.4, 40.0, rng), _model("tool", "agent", "", 0.5, 50.0, rng)]
    for name, merge in {**UNTUNED, **MORE}.items():
        wins = merge["method"] in ADDING if group == "sgd" else merge["method"] == "ram_plus"
        models.append(
            _model(name, "variant", merge["method"], 0.9 if wins else 0.6, 99.0 if name in MORE else 50.0, rng)
        )
    models += [_model(name, "variant", "ties", 0.9, 90.0, rng) for name in FOUND]
    same = group == "sgd"
    features = Features(0.5, 0.4 if same else 0.9, 0.3, 0.0, 0.5)
    return Run(f"zoo-{seed}-{group}", group, seed, features, {"tool": 0.5}, tuple(models), 60.0)


def _model(name: str, kind: str, method: str, rate: float, validation: float, rng: np.random.Generator) -> Model:
    test = {suite: (rng.random(101) < rate).astype(np.float64) for suite in ("one", "two")}
    return Model(name, kind, method, name, validation, test)


@pytest.fixture(scope="module")
def runs() -> list[Run]:
    return [planted(seed, group) for group in ("sgd", "adamw-bf16") for seed in range(1, 5)]


def test_runs_survive_a_file(tmp_path: Path, runs: list[Run]) -> None:
    write_runs(tmp_path / "runs.json", runs)
    again = {run.name: run for run in read_runs(tmp_path / "runs.json")}
    for run in runs:
        assert again[run.name].to_json() == run.to_json()
        assert [model.average for model in again[run.name].models] == [model.average for model in run.models]


def test_tuned_means_best_on_validation_whatever_test_says(runs: list[Run]) -> None:
    for run in runs:
        assert tuned(run)["task_arithmetic"].name in MORE
        assert tuned(run)["average"].name == "average"
        assert untuned(run)["task_arithmetic"].name == "task_arithmetic"


def test_planted_winners_are_found_with_intervals(runs: list[Run]) -> None:
    choices = [untuned(run) for run in runs if run.group == "sgd"]
    found = lines(choices)
    assert {line.name for line in found[:2]} == set(ADDING)
    assert sum(line.wins for line in found) >= len(choices)
    apart = difference(choices, "ties", "average")
    assert apart.low > 10
    averages = [choice["ties"].average - choice["average"].average for choice in choices]
    assert apart.value == pytest.approx(np.mean(averages))


def test_the_advisor_is_judged_on_runs_that_it_does_not_know(tmp_path: Path, runs: list[Run]) -> None:
    seeds, regimes = judge(runs, "seed"), judge(runs, "regime")
    assert seeds is not None
    assert regimes is not None
    # Other seeds of the regime tell the winner; the other regime tells the wrong one.
    assert seeds.regret < 8 < regimes.regret
    assert regimes.hits == 0
    assert regret(runs[0], "average") > 15
    assert judge(runs[:1], "seed") is None
    write_advisor(runs, tmp_path / "advisor.json")
    assert (tmp_path / "advisor.json").is_file()


def test_the_committed_page_and_advice_are_what_the_committed_data_say(tmp_path: Path) -> None:
    found = read_runs(DATA)
    said = write_page(found, tmp_path)
    assert said in Path("README.md").read_text("utf-8")
    assert (tmp_path / "results.md").read_text("utf-8") == DATA.with_name("results.md").read_text("utf-8")
    write_advisor(found, tmp_path / "advisor.json")
    shipped = Path("rammerge/overlap/advisor.json").read_text("utf-8")
    assert (tmp_path / "advisor.json").read_text("utf-8") == shipped
