"""Registered versions for the tests of this room."""

from pathlib import Path

from tasks.records import registry
from tasks.records.connection import client
from tasks.records.registry import Release


def register(name: str, model: Path, digest: str, place: Path) -> Release:
    """Register `model` under `name` as content `digest`, with artifacts below `place`."""
    mlflow = client()
    if (found := mlflow.get_experiment_by_name("releases")) is None:
        experiment = mlflow.create_experiment("releases", artifact_location=(place / "artifacts").as_uri())
    else:
        experiment = found.experiment_id
    run = mlflow.create_run(experiment, run_name=digest).info.run_id
    return registry.register(name, model, digest=digest, run_id=run, description="", tags={"kind": "test"})


def aliases(name: str) -> dict[str, int]:
    """Return the version that each alias of `name` points to."""
    return {alias: release.version for release in registry.releases(name) for alias in release.aliases}
