"""Contract: what an earlier release left in its home, this one reads, or refuses in one sentence that says what to do.

The homes were made by make.py, from the code of a commit each. The newest is tested with everything else, the others in
the group `servers`.
"""

import os
import re
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest.mock import patch

import pytest
from safetensors.numpy import load_file

from flows.cli.program import main
from tests.upgrade.make import HOMES, PLACE, environment, place

Say = Callable[..., str]
_VARIABLES = environment()


_NEWEST = "02a77ee"


def _tested(home: Path) -> object:
    return pytest.param(home, marks=() if home.name.startswith(_NEWEST) else pytest.mark.servers)


@pytest.fixture(
    scope="module",
    autouse=True,
    params=map(_tested, sorted(HOMES.iterdir())),
    ids=lambda file: file.name.partition(".")[0],
)
def old(request: pytest.FixtureRequest) -> Iterator[Path]:
    # MLflow keeps connections by their address, and all homes lie in the same place: each is spelled differently.
    spelled = f"sqlite:///{PLACE}/{'./' * sorted(HOMES.iterdir()).index(request.param)}home/mlflow/mlflow.db"
    with place() as directory, tarfile.open(request.param) as tar, pytest.MonkeyPatch.context() as changed:
        tar.extractall(directory, filter="data")
        changed.setitem(_VARIABLES, "MLFLOW_TRACKING_URI", spelled)
        yield directory


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Say:
    """Return a function that runs a command in the old home, and returns what it printed, with its code if not 0."""

    def run(*words: str) -> str:
        # A command sets variables for the rest of its process, so all are restored.
        restored = patch.dict(os.environ, _VARIABLES, clear=True)
        with restored, patch.object(sys, "argv", ["rammerge", *words]), pytest.raises(SystemExit) as exit_:
            main()
        said = capsys.readouterr()
        assert "Traceback" not in said.err and "unexpected" not in said.err
        return said.out if exit_.value.code == 0 else f"{exit_.value.code}: {said.err}"

    return run


def test_versions_are_listed_with_their_aliases(say: Say) -> None:
    said = say("releases", "tiny")
    assert re.findall(r"^ *(\d) +(\w+)", said, re.MULTILINE) == [("2", "champion"), ("1", "previous")]


def test_the_champion_trades_places_with_the_one_before(say: Say) -> None:
    assert say("rollback", "tiny").splitlines()[0] == "tiny version 1 is champion again; version 2 is previous"
    promoted = say("promote", "tiny", "2")
    assert promoted.splitlines()[0] == "tiny version 2 is champion now, version 1 previous"
    assert "method: average -> ram_plus" in promoted


def test_merged_models_are_verified(say: Say, old: Path) -> None:
    models = [old / "merged", *old.glob("home/store/merge/*/model"), *old.glob("home/mlflow/**/artifacts/model/model")]
    assert len(models) >= 5
    for model in models:
        assert "is as it was merged" in say("verify", str(model))


def test_a_patch_is_verified_and_unpacked(say: Say, old: Path, tmp_path: Path) -> None:
    base, agent = str(old / "base"), tmp_path / "agent"
    assert say("verify", str(old / "patch"), "--base", base)
    assert say("unpack", "--base", base, str(old / "patch"), "--out", str(agent))
    was, now = (load_file(directory / "model.safetensors") for directory in (old / "tool", agent))
    assert was.keys() == now.keys() and all((was[name] == now[name]).all() for name in was)


def test_the_last_report_is_found(say: Say, old: Path) -> None:
    page = Path(say("report", str(old / "recipe.yaml")).strip())
    assert page.is_relative_to(old) and "ram_plus-paper" in page.read_text("utf-8")


def test_runs_are_compared_or_refused_with_the_way_out(say: Say) -> None:
    said = say("compare", "tiny", "tiny:ram")
    assert "ram" in said or (said.startswith("2: error: ") and "run the recipe again" in said), said


def test_pruning_counts_what_there_is_and_keeps_what_the_last_run_leads_to(say: Say, old: Path) -> None:
    said = say("prune", "--unused-days", "0", "--versions", "0", "--dry-run")
    assert "would have removed no registered version" in said and "\nmerge " in said and "\nreport " in said
    for _ in range(2):
        assert say("report", str(old / "recipe.yaml"))
        say("prune", "--unused-days", "0")
