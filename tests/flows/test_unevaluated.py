"""Contract: with `evaluation: none` a recipe merges and registers a model that nobody can ask, and promotes nothing.

Here that is done in parts, which are gone afterwards, and which a second run does not make again.
"""

from pathlib import Path
from typing import Any

import pytest
import yaml

from flows.merge_and_evaluate import merge_and_evaluate
from flows.run.outcome import Outcome
from flows.run.planning import plan
from rammerge.errors import InputError
from tasks.runtime.environment import activate
from tasks.runtime.progress import listening
from tests.fixtures.models import save_agents, save_model

pytestmark = pytest.mark.usefixtures("prefect_api")


@pytest.fixture
def recipe(tmp_path: Path, rammerge_home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A recipe over an encoder, which generates no text and has no tokenizer."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{rammerge_home / 'mlflow.db'}")
    save_agents(save_model(tmp_path / "base", "encoder"), tmp_path, {"one": 0.2, "two": 0.3})
    content = {
        "name": "silent",
        "base": "base",
        "agents": {"one": "one", "two": "two"},
        "merges": ["ram"],
        "evaluation": "none",
        "output": {"shard_size": "10KB"},
        "compute": {"parts": 2},
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(content))
    return tmp_path / "recipe.yaml"


def test_it_is_merged_tried_and_registered_without_a_leaderboard(recipe: Path, rammerge_home: Path) -> None:
    activate()
    ended: list[str] = []
    with listening(lambda event: ended.append(event.step) if event.state == "done" else None):
        state: Any = merge_and_evaluate(recipe, return_state=True)
    parts = {"overlap part 1 of 2", "overlap part 2 of 2", *(f"merge part {number} of 2" for number in range(3))}
    assert {step for step in ended if " part " in step} == parts
    kept = [
        entry for kind in ("overlap_part", "merge_part") for entry in (rammerge_home / "store" / kind).glob("[!.]*")
    ]
    assert kept == [], "parts are whole by now"
    outcome: Outcome = state.result()
    assert outcome.passed and outcome.selected == "ram"
    assert outcome.registered == ("silent", 1)
    assert outcome.champion == "silent version 1 is registered and not promoted"
    assert str(state.message) == "ram is not evaluated. Silent version 1 is registered and not promoted."
    assert (outcome.leaderboard_file, outcome.decision_file, outcome.report) == (None, None, None)
    assert "evaluation none" in str(outcome)
    with pytest.raises(InputError, match="evaluation: none"):
        _ = outcome.leaderboard

    from mlflow import MlflowClient

    client = MlflowClient()
    run = client.get_run(outcome.run_id)
    assert run.data.params["evaluation"] == "none"
    assert run.data.tags["rammerge.gates"] == "none"
    assert "Not evaluated" in run.data.tags["mlflow.note.content"]
    assert {"seconds/extract"} <= set(run.data.metrics)
    version = client.get_model_version("silent", "1")
    assert version.tags["rammerge.gates"] == "none"
    assert "Not evaluated" in version.description

    ended.clear()
    with listening(lambda event: ended.append(event.step) if event.state == "done" else None):
        repeated: Any = merge_and_evaluate(recipe, return_state=True)
    assert not {step for step in ended if " part " in step}
    again: Outcome = repeated.result()
    assert (again.registered, again.run_id) == (outcome.registered, outcome.run_id)


def test_the_number_of_steps_is_known_before(recipe: Path) -> None:
    # Three models to fetch, a preflight, the overlap, a merge and its trial, the record and the registration.
    assert plan(recipe).steps == 3 + 2 + 2 + 2
