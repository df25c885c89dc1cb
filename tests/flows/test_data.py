"""Contract: a recipe with a method that needs data runs the base on its prompts, once, and says what they were.

What the prompts say is part of what identifies the merge, and where they are is not. `check` reads them.
"""

from pathlib import Path
from typing import Any

import pytest
import yaml

from flows.merge_and_evaluate import merge_and_evaluate
from flows.run.checking import check
from flows.run.outcome import Outcome
from flows.run.planning import plan
from rammerge.errors import InputError, RammergeError
from rammerge.publishing.manifest import Manifest
from tasks.runtime.environment import activate
from tests.evaluation.made import write_model
from tests.fixtures.models import save_agents

pytestmark = pytest.mark.usefixtures("prefect_api")


@pytest.fixture
def recipe(tmp_path: Path, rammerge_home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{rammerge_home / 'mlflow.db'}")
    save_agents(write_model(tmp_path / "base"), tmp_path, {"one": 0.2, "two": 0.3})
    (tmp_path / "prompts.txt").write_text("one two\nthree\n")
    return write(tmp_path, {"method": "esm", "prompts": "prompts.txt"})


def write(directory: Path, merge: dict[str, Any]) -> Path:
    agents = {"one": "one", "two": "two"}
    content = {"name": "data", "base": "base", "agents": agents, "merges": [merge], "evaluation": "none"}
    (directory / "recipe.yaml").write_text(yaml.safe_dump(content))
    return directory / "recipe.yaml"


def outcome_of(recipe: Path) -> Outcome:
    state: Any = merge_and_evaluate(recipe, return_state=True)
    outcome: Outcome = state.result()
    return outcome


def test_the_base_reads_the_prompts_and_the_merge_names_them(recipe: Path) -> None:
    activate()
    assert "prompts: 2 in prompts.txt, 12 tokens" in check(plan(recipe))
    assert plan(recipe).steps == 3 + 2 + 1 + 2 + 2
    outcome = outcome_of(recipe)
    said = Manifest.read(outcome.model).settings.prompts
    assert said is not None
    assert (said["count"], said["tokens"], len(said["sha256"])) == (2, 12, 64)
    card = (outcome.model / "README.md").read_text()
    assert f"Made with data: 2 unlabeled prompts, 12 tokens, SHA-256 `{said['sha256']}`." in card


def test_what_prompts_say_identifies_a_merge_and_where_they_are_does_not(recipe: Path) -> None:
    said = plan(recipe).variants["esm"].identity
    (recipe.parent / "moved.txt").write_bytes((recipe.parent / "prompts.txt").read_bytes())
    moved = write(recipe.parent, {"method": "esm", "prompts": "moved.txt"})
    assert plan(moved).variants["esm"].identity == said
    method = plan(moved).variants["esm"]
    (recipe.parent / "moved.txt").write_text("four\n")
    assert plan(moved).variants["esm"].identity != said
    with pytest.raises(RammergeError, match=r"moved.txt was changed after the run was planned; run again"):
        method.resolved()


@pytest.mark.parametrize(
    ("merge", "message"),
    [
        (
            {"method": "esm"},
            r"recipe.yaml:\d+: merges\[0\]: method 'esm' needs data: give a file of unlabeled prompts",
        ),
        ({"method": "esm", "prompts": "absent.txt"}, r"recipe.yaml:\d+: merges\[0\]: .*absent.txt does not exist"),
        (
            {"method": "ram", "prompts": "prompts.txt"},
            r"merges\[0\]: method 'ram' needs no data; leave the prompts out",
        ),
    ],
)
def test_a_recipe_without_its_data_is_refused(recipe: Path, merge: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        plan(write(recipe.parent, merge))


def test_prompts_that_the_base_cannot_read_are_found_by_the_check(recipe: Path) -> None:
    activate()
    (recipe.parent / "prompts.txt").write_text("short\n" + "x" * 200)
    with pytest.raises(InputError, match=r"prompts.txt: prompt 2 has 200 tokens, and .* reads 128 at most; shorten it"):
        check(plan(recipe))
