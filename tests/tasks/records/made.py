"""Registered versions for the tests of this room."""

from collections.abc import Mapping
from pathlib import Path

from evaluation.judging.leaderboard import BOARD, Leaderboard
from tasks.records import registry
from tasks.records.connection import client
from tasks.records.registry import Release


def register(
    name: str,
    model: Path,
    digest: str,
    place: Path | str,
    *,
    board: Leaderboard | None = None,
    params: Mapping[str, str] = {},
    tags: Mapping[str, str] = {},
) -> Release:
    """Register `model` under `name` as content `digest`, with artifacts below `place`, a directory or an address.

    Its run has the parameters `params`, and is its own parent, with the leaderboard `board`.
    """
    mlflow = client()
    if (found := mlflow.get_experiment_by_name("releases")) is None:
        location = place if isinstance(place, str) else place.as_uri()
        experiment = mlflow.create_experiment("releases", artifact_location=f"{location}/artifacts")
    else:
        experiment = found.experiment_id
    run = mlflow.create_run(experiment, run_name=digest).info.run_id
    for param, value in params.items():
        mlflow.log_param(run, param, value)
    if board is not None:
        mlflow.log_dict(run, board.to_json(), BOARD)
    told = {"kind": "test", **({registry.TAG_RUN: run} if board else {}), **tags}
    return registry.register(name, model, digest=digest, run_id=run, description="", tags=told)


def aliases(name: str) -> dict[str, int]:
    """Return the version that each alias of `name` points to."""
    return {alias: release.version for release in registry.releases(name) for alias in release.aliases}
