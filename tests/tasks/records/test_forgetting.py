"""Contract: records of runs go only if they are old and ended, and neither a version nor the next run refers to them.

tests/servers/test_records.py has the whole way, with Prefect's records and a run afterwards.
"""

import time
from pathlib import Path

import pytest

from tasks.records import forgetting
from tasks.records.connection import client
from tasks.records.experiments import experiment_of
from tasks.records.forgetting import forget
from tasks.records.history import TAG_HISTORY
from tasks.records.log import TAG_PIPELINE, TAG_PREFECT_RUN
from tasks.records.registry import TAG_RUN

DAY = 24 * 60 * 60


def record(name: str, place: Path, *, days: float, ended: bool = True, recipe: str = "nightly") -> tuple[str, str]:
    """Record a run of a pipeline, some days ago, with one variant; return the ids of both."""
    mlflow = client()
    began = round((time.time() - days * DAY) * 1000)
    common = {"rammerge.recipe": recipe, TAG_PREFECT_RUN: f"http://prefect/runs/{name}"}
    parent = mlflow.create_run(experiment_of(mlflow, recipe), began, {**common, TAG_PIPELINE: name}, name).info.run_id
    tags = {**common, "mlflow.parentRunId": parent}
    child = mlflow.create_run(experiment_of(mlflow, recipe), began, tags, "ram").info.run_id
    (place / "page.html").write_text("page")
    mlflow.log_artifact(parent, str(place / "page.html"))
    for run in (child, parent) if ended else ():
        mlflow.set_terminated(run)
    return parent, child


@pytest.fixture(autouse=True)
def collected(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """MLflow's command takes seconds: which runs it is told to remove."""
    told: list[str] = []
    monkeypatch.setattr(forgetting, "_collect", lambda _, runs: told.extend(runs))
    return told


def test_what_nothing_refers_to_goes_and_the_rest_stays(place: Path, collected: list[str]) -> None:
    old, young = record("old", place, days=31), record("young", place, days=29)
    last, alone = record("last", place, days=40), record("alone", place, days=50, recipe="no longer scheduled")
    open_ = record("open", place, days=41, ended=False)
    serving, scored, compared = (record(name, place, days=60) for name in ("serving", "scored", "compared"))
    theirs = client().create_run(experiment_of(client(), "nightly"), 0).info.run_id
    client().set_terminated(theirs)
    client().create_registered_model("model")
    history = f"- {{what: promoted, when: now, by: me, run: {compared[0]}}}"
    tags = {TAG_RUN: scored[0], TAG_HISTORY: history}
    client().create_model_version("model", source=str(place), run_id=serving[1], tags=tags)

    dry = forget(30, keep=[last[0]], dry_run=True)
    assert collected == [] and client().get_run(old[0]).info.lifecycle_stage == "active"
    assert forget(30, keep=[last[0]]) == dry and set(collected) == set(old) and collected[-1] == old[0]
    assert (dry.runs, dry.records, dry.freed, dry.only_marked) == (1, 2, len("page"), False)
    assert dry.linked >= {"last", "alone", "serving", "scored", "compared"}
    kept = [*young, *last, *alone, *open_, *serving, *scored, *compared, theirs]
    assert {client().get_run(run).info.lifecycle_stage for run in kept} == {"active"}


def test_what_a_killed_pruning_marked_goes_with_the_next(place: Path, collected: list[str]) -> None:
    killed, _ = record("killed", place, days=31, recipe="killed"), record("last", place, days=0, recipe="killed")
    for run in killed:
        client().delete_run(run)
    forget(30)
    assert set(killed) <= set(collected)
