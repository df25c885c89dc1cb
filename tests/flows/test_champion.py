"""Contract: a run promotes only what is shown to match the release that serves, and says with whom it compared.

The champion is measured on the run's own items, has a row on the leaderboard, and stays if it cannot be measured.
"""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.pipeline import World

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("prefect_api")]

AVERAGE = {"merges": ["average"], "gates": []}
# Ten items cannot show that a model is within 0.02 of another one, but everything is within 1.
LENIENT = [{"rule": "not_worse_than_champion", "margin": 1.0}]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A world in which `ram` is champion as version 1."""
    world = World(tmp_path_factory.mktemp("world"))
    with pytest.MonkeyPatch.context() as patch:
        world.enter(patch)
        first = run(world.write(merges=["ram"], gates=[]))
        assert first.passed and first.champion == "tiny version 1 is champion now"
        yield world


@pytest.fixture(autouse=True)
def environment(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.enter(monkeypatch)


def run(recipe: Path) -> Any:
    from flows.merge_and_evaluate import merge_and_evaluate

    return merge_and_evaluate(recipe, return_state=True).result(raise_on_failure=False)


def champions() -> list[int]:
    from tasks.records.registry import releases

    return [release.version for release in releases("tiny") if "champion" in release.aliases]


def test_what_is_not_shown_to_match_the_champion_is_not_promoted(world: World) -> None:
    outcome = run(world.write(**AVERAGE))
    assert not outcome.passed
    assert "is not shown to be not worse than the champion by 0.02 or more, tiny version 1" in outcome.refusals[0]
    assert champions() == [1]
    board = json.loads(outcome.leaderboard_file.read_text())
    assert [row["kind"] for row in board["rows"]] == ["base", "agent", "agent", "champion", "variant"]


def test_the_champion_is_on_record() -> None:
    from tasks.records.connection import client

    mlflow = client()
    found = mlflow.search_runs([mlflow.get_experiment_by_name("tiny").experiment_id])
    latest = max((run for run in found if run.info.run_name == "tiny"), key=lambda run: run.info.start_time)
    assert 0 <= latest.data.metrics["champion/test/average"] <= 1


def test_a_run_may_say_how_much_worse_is_enough(world: World) -> None:
    outcome = run(world.write(merges=["average"], gates=LENIENT))
    assert outcome.passed
    assert outcome.champion == "tiny version 2 is champion now, version 1 previous"
    assert champions() == [2]


def test_the_champion_itself_has_nobody_to_match(world: World) -> None:
    outcome = run(world.write(**AVERAGE))
    assert outcome.passed
    assert "champion" not in {row["kind"] for row in json.loads(outcome.leaderboard_file.read_text())["rows"]}
    assert champions() == [2]


def test_a_champion_that_another_variant_is_needs_no_second_measurement(world: World) -> None:
    outcome = run(world.write(merges=["average", "ram"], gates=[]))
    board = json.loads(outcome.leaderboard_file.read_text())
    assert [row["kind"] for row in board["rows"]] == ["base", "agent", "agent", "variant", "variant"]
    assert outcome.passed == (outcome.selected == "average")


def test_a_champion_that_changed_after_the_comparison_stays() -> None:
    from tasks.records.promotion import promote

    kept = promote("tiny", 1, instead_of=None)
    assert not kept.changed and champions() == [2]
    assert kept.sentence == (
        "tiny version 1 is not promoted: it was compared with no champion, but version 2 is champion now; "
        "run the recipe again"
    )


def test_a_champion_whose_files_are_gone_stays_and_the_reason_is_said(world: World) -> None:
    from tasks.records.registry import releases

    (champion,) = (release for release in releases("tiny") if "champion" in release.aliases)
    shutil.rmtree(Path(champion.path) / "model")
    outcome = run(world.write(merges=["ram"], gates=LENIENT))
    assert not outcome.passed
    assert "cannot be compared with the champion, tiny version 2: " in outcome.refusals[0]
    assert champions() == [2]
