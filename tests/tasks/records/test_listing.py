"""Contract: what MLflow has is seen whole, however many pages it takes."""

from uuid import uuid4

import pytest

from tasks.records import listing, registry
from tasks.records.connection import client
from tasks.records.listing import every_experiment, every_model, every_run, every_version


@pytest.fixture(autouse=True)
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "_PAGE", 2)


def test_everything_is_found_beyond_the_first_page() -> None:
    mlflow, name = client(write=True), uuid4().hex
    names = [f"{name}-{number}" for number in range(3)]
    experiment = mlflow.create_experiment(name)
    for each in names:
        mlflow.create_registered_model(each)
        mlflow.create_model_version(names[0], source=f"/nowhere/{each}")
        mlflow.create_run(experiment, run_name=each)
    assert {model.name for model in every_model(mlflow)} >= set(names)
    assert [int(found.version) for found in every_version(mlflow, f"name='{names[0]}'")] == [3, 2, 1]
    assert experiment in every_experiment(mlflow)
    assert {run.info.run_name for run in every_run(mlflow, [experiment], "")} == set(names)
    assert [release.version for release in registry.releases(names[0])] == [3, 2, 1]


def test_a_deleted_run_is_found_if_wanted() -> None:
    mlflow = client(write=True)
    experiment = mlflow.create_experiment(uuid4().hex)
    run = mlflow.create_run(experiment).info.run_id
    mlflow.delete_run(run)
    assert every_run(mlflow, [experiment], "") == []
    assert [found.info.run_id for found in every_run(mlflow, [experiment], "", deleted=True)] == [run]
