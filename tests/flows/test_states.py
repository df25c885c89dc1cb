"""Contract of the deployed flows: the page of a run says what came of it, in its state and in an artifact.

Bad input ends in Failed with its sentence, about what the user wrote and not about a file that rammerge wrote.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from rammerge.recipe import parse
from tests.fixtures.pipeline import World

OWN_METHOD = Path(__file__).parents[2] / "examples" / "python" / "own_method.py"

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("prefect_api")]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("world"))


@pytest.fixture(autouse=True)
def environment(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.enter(monkeypatch)


def run(recipe: Path) -> Any:
    from flows.merge_and_evaluate import merge_and_evaluate

    return merge_and_evaluate(recipe, return_state=True)


def artifact(key: str) -> str:
    from prefect.artifacts import Artifact

    found: Any = Artifact.get(key)
    return str(found.data)


def test_a_refusal_names_the_gate_and_by_how_much(world: World) -> None:
    state = run(world.write(gates=[{"rule": "min_score", "value": 1.0}]))
    assert state.name == "Refused"
    assert "is not shown to reach 1 on average: it scores 0." in state.message
    assert state.message.endswith("Tiny version 1 is registered and not promoted.")


def test_a_refused_champion_is_not_called_unpromoted(world: World) -> None:
    assert run(world.write()).name == "Completed"
    state = run(world.write(gates=[{"rule": "min_score", "value": 1.0}]))
    assert "Tiny version 1 is champion already" in state.message and "not promoted" not in state.message


def test_moves_say_what_they_came_to() -> None:
    from flows.promote import promote
    from flows.rollback import rollback

    state: Any = promote("tiny", 1, return_state=True)
    assert (state.name, state.message) == ("Unchanged", "tiny version 1 is champion already")
    assert artifact("tiny-release").strip() == "tiny version 1 is champion already."
    error: Any = rollback("tiny", return_state=True)
    assert error.is_failed() and "no previous champion" in error.message


def test_a_sweep_shows_its_leaderboard_and_its_winner(world: World) -> None:
    from flows.sweep import sweep

    state: Any = sweep(world.write(), "task_arithmetic", {"scale": [0.5, 1.0]}, return_state=True)
    assert state.is_completed() and "task_arithmetic-scale" in state.message
    assert "task_arithmetic-scale1.0" in artifact("tiny-task-arithmetic-sweep-leaderboard")
    assert "is registered and not promoted" in artifact("tiny-task-arithmetic-sweep-release")


def test_a_sweep_finds_what_lies_beside_the_recipe_and_records_what_was_run(world: World) -> None:
    from flows.sweep import sweep
    from tasks.records.connection import client

    shutil.copy(OWN_METHOD, world.root / "swept_method.py")
    recipe = world.write(agents={"1e5": "tool"}, trust=["swept_method"])
    # In quotes, because rammerge reads this name as a number otherwise, and refuses it.
    recipe.write_text(json.dumps(yaml.safe_load(recipe.read_text())))
    outcome: Any = sweep(recipe, "swept_method:LARGEST", {"scale": [0.5]}, return_state=True).result()
    run = client().get_run(outcome.run_id)
    written = Path(client().download_artifacts(outcome.run_id, "recipe.yaml", str(world.root)))
    (merge,) = yaml.safe_load(written.read_text())["merges"]
    assert merge["method"] == "swept_method:LARGEST" and merge["sweep"] == {"scale": [0.5]}
    assert parse(world.recipe, written.read_text()).agents.keys() == {"1e5"}
    assert run.data.tags["mlflow.source.name"] == str(recipe)


@pytest.mark.parametrize(
    ("method", "grid", "words"),
    [
        ("task_arithmetics", {"scale": [1.0]}, "did you mean 'task_arithmetic'?"),
        ("task_arithmetic", {"scael": [1.0]}, "did you mean 'scale'?"),
        ("task_arithmetic", {"scale": []}, "needs one or more different values"),
    ],
)
def test_a_mistake_in_a_sweep_is_told_as_what_was_asked_for(
    method: str, grid: dict[str, Any], words: str, world: World
) -> None:
    from flows.sweep import sweep

    state: Any = sweep(world.write(), method, grid, return_state=True)
    sentence = str(state.result(raise_on_failure=False))
    assert state.is_failed() and sentence.startswith(f"the sweep of {method}: ") and words in sentence
    assert "sweeps" not in sentence


def test_a_missing_recipe_fails_with_its_sentence(world: World) -> None:
    state = run(world.root / "nowhere.yaml")
    assert state.is_failed() and state.name == "Failed"
    assert "nowhere.yaml: no such recipe file" in state.message
