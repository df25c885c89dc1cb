"""MLflow's experiments: one for each recipe."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from rammerge import store
from rammerge.system.home import home
from tasks.records.database import sqlite_file
from tasks.runtime.environment import tracking_server

if TYPE_CHECKING:
    from mlflow import MlflowClient

# Without this tag MLflow's dashboard shows an experiment as one of traces and prompts, and there are none.
_SHOWN_AS_RUNS = {"mlflow.experimentKind": "custom_model_development"}


def experiment_of(mlflow: "MlflowClient", name: str) -> str:
    """Return the id of the experiment of that name, which is made if it is missing, and restored if it was deleted."""
    from mlflow.exceptions import MlflowException

    if found := mlflow.get_experiment_by_name(name):
        if found.lifecycle_stage == "deleted":  # in MLflow's page; nobody else can use its name now
            mlflow.restore_experiment(found.experiment_id)
        return str(found.experiment_id)
    try:
        return str(mlflow.create_experiment(name, artifact_location=_artifacts(name), tags=_SHOWN_AS_RUNS))
    except MlflowException:  # a concurrent run has created it
        found = mlflow.get_experiment_by_name(name)
        if found is None:
            raise
        return str(found.experiment_id)


def _artifacts(name: str) -> str | None:
    """Return where an experiment's files are kept; a server chooses its own place."""
    if tracking_server():
        return None
    shared = store.shared_url()
    if shared is not None and sqlite_file(os.environ.get("MLFLOW_TRACKING_URI", "")) is None:
        place = f"mlflow/artifacts/{name}"  # whoever reads the database elsewhere has no home of this machine's
        return f"{shared}/{place}" if "://" in shared else (Path(shared) / place).as_uri()
    # A local place, so that models are registered by hard links.
    return (home() / "mlflow" / "artifacts" / name).as_uri()
