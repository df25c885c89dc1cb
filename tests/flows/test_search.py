"""Contract: a search ends with two variants like any other, and with no trial's weights on the disk.

It reads no test item, does nothing twice, and needs no weights for what it knows.
"""

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from evaluation.search.history import History
from rammerge.errors import InputError
from tests.fixtures.pipeline import World
from tests.flows.test_flow import run

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("prefect_api")]

TRIALS = 4
SEARCH = {
    "methods": {"ram_plus": {"r": [0.0, 0.9]}, "task_arithmetic": {"scale": [0.1, 1.5]}},
    "trials": TRIALS,
    "keep": 1,
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("world"))


@pytest.fixture(autouse=True)
def environment(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Share one home among the tests of this module: each test starts where the test before it ended."""
    world.enter(monkeypatch)


def write(world: World, **changes: Any) -> Path:
    return world.write(merges=["average", {"search": {**SEARCH, **changes}}])


def histories(world: World) -> list[History]:
    """Return the searches on record, oldest first."""
    files = sorted((world.home / "store" / "searched").glob("*/search.json"), key=lambda file: file.stat().st_mtime)
    return [History.model_validate_json(file.read_text()) for file in files]


def weights(world: World) -> list[Path]:
    return list((world.home / "store" / "trial-model").glob("*/model"))


def test_the_winner_and_the_runner_up_are_variants_like_any_other(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows.run.planning import plan
    from tasks.steps import candidates
    from tasks.steps.merging import write_merges

    read: list[int] = []

    def noted(family: Any, methods: Mapping[Path, Any], *rest: Any, **named: Any) -> Iterator[Path]:
        read.append(len(methods))
        return write_merges(family, methods, *rest, **named)

    monkeypatch.setattr(candidates, "write_merges", noted)
    outcome, steps = run(write(world))
    assert read[0] == TRIALS  # in one read of the models
    assert sum(map(len, steps.values())) == plan(world.recipe).steps and "failed" not in steps
    assert {row.name for row in outcome.leaderboard.rows if row.kind == "variant"} == {
        "average",
        "search-best",
        "search-second",
    }
    (history,) = histories(world)
    assert [trial.number for trial in history.trials] == list(range(TRIALS))
    assert history.answers == sum(trial.items for trial in history.trials) < history.full == 6 * TRIALS
    best = next(trial for trial in history.trials if trial.number == history.best)
    # The same items asked in other batches, at the end of the run: the leaderboard's validation score.
    found = outcome.leaderboard.row("search-best").average["validation"].value
    assert best.whole and found == pytest.approx(best.average)
    assert not weights(world)


def test_the_search_is_on_record_in_mlflow_and_on_the_page() -> None:
    from prefect.artifacts import Artifact

    from tasks.records.connection import client

    mlflow = client()
    runs = mlflow.search_runs([mlflow.get_experiment_by_name("tiny").experiment_id])
    trials = [found for found in runs if found.info.run_name.startswith("trial ")]
    assert len(trials) == TRIALS and all(found.info.status == "FINISHED" for found in trials)
    assert {found.data.tags["rammerge.trial"] for found in trials} == {
        "winner",
        "runner-up",
        "last to be dropped",
        "dropped",
    }
    parent = next(found for found in runs if found.info.run_name == "tiny")
    names = {file.path for file in mlflow.list_artifacts(parent.info.run_id)}
    assert {"search.json", "search.md", "search-history.png", "search-pareto.png"} <= names
    page = str(Artifact.get("tiny-search"))
    assert "winner" in page and "data:image/png" in page


def test_a_second_run_does_nothing(world: World) -> None:
    outcome, steps = run(world.recipe)
    assert outcome.passed and "done" not in steps and "search" in steps["cached"]


def test_a_rerun_needs_no_weights_for_answers_that_are_in_the_store(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tasks.steps import candidates

    def refuse(*_: Any) -> None:
        raise AssertionError("merged again")

    monkeypatch.setattr(candidates, "write_merges", refuse)
    (before,) = histories(world)
    for lost in ("trial", "searched"):
        shutil.rmtree(world.home / "store" / lost)
    (world.home / "search" / "trials.db").unlink()
    _, steps = run(world.recipe)
    assert "failed" not in steps
    assert histories(world) == [before]


def test_test_items_steer_no_candidate(world: World) -> None:
    (before,) = histories(world)
    items = world.root / "words" / "test.jsonl"
    changed = [json.loads(line) for line in items.read_text().splitlines()]
    items.write_text("".join(json.dumps({**item, "prompt": f"{item['prompt']} else"}) + "\n" for item in changed))
    outcome, _ = run(world.recipe)
    assert outcome.selected in ("average", "search-best", "search-second")
    assert histories(world) == [before]  # the same record, down to the last score


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"items": 11}, "search.items: two trials take 12 answers; give at least as many"),
        ({"methods": {"ram_plus": {"r": [-1, 1]}}}, "search.methods.ram_plus.r: "),
        ({"methods": {"ties": {"densty": [0.1, 1]}}}, "has no parameter 'densty' (did you mean 'density'?)"),
        ({"database": "sqlite:////nowhere/at/all.db"}, "cannot be opened"),
    ],
)
def test_check_refuses_a_search_that_cannot_work(world: World, changes: dict[str, Any], words: str) -> None:
    from flows.run.checking import check
    from flows.run.planning import plan

    with pytest.raises(InputError) as raised:
        check(plan(write(world, **changes)))
    assert words in str(raised.value)


def test_check_says_what_a_search_takes(world: World) -> None:
    from flows.run.checking import check
    from flows.run.planning import plan

    lines = check(plan(write(world, minutes=5)))
    said = next(line for line in lines if line.startswith("search: "))
    assert f"{TRIALS} trials of ram_plus, task_arithmetic, or as many as fit into 5 minutes" in said
    assert "at most 4 trial models on the disk" in said


def test_the_example_searches(world: World, tmp_path: Path) -> None:
    example = Path(__file__).parents[2] / "examples" / "zoo-search.yaml"
    recipe = yaml.safe_load(example.read_text())
    recipe["base"] = str(example.parent / recipe["base"])
    recipe["agents"] = {name: str(example.parent / source) for name, source in recipe["agents"].items()}
    recipe["merges"] = recipe["merges"][-1:]
    recipe["merges"][-1]["search"] |= {"trials": 2, "objectives": ["average", "worst", "retention"]}
    recipe["evaluation"] |= {"suites": ["zoo_memory"], "limit": 4}
    (tmp_path / "zoo-search.yaml").write_text(yaml.safe_dump(recipe))
    outcome, _ = run(tmp_path / "zoo-search.yaml")
    assert outcome.leaderboard.row("search-best").method in recipe["merges"][-1]["search"]["methods"]
    assert histories(world)[-1].objectives == ["average", "worst", "retention on zoo_memory"]
