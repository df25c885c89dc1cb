"""The connection to MLflow: the tracking server that the environment names, or rammerge's own database."""

import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from rammerge.system.home import home
from rammerge.system.locks import locked

if TYPE_CHECKING:
    from mlflow import MlflowClient


def lock_file(what: str) -> Path:
    """Return the file to lock while `what` of MLflow's is being changed."""
    return home() / "mlflow" / f"{what}.lock"


def client() -> "MlflowClient":
    """Return a client of the tracking server that the environment names; the local database by default."""
    from mlflow import MlflowClient

    with locked(lock_file("database")):  # two processes cannot make the tables at once
        _make_database(os.environ.get("MLFLOW_TRACKING_URI", ""))
        mlflow = MlflowClient()
        mlflow.search_registered_models(max_results=1)
    return mlflow


def _make_database(uri: str) -> None:
    """Make the SQLite database that `uri` names, if it is missing: whole or not at all.

    MLflow makes its tables one by one; a kill or a full disk on the way would leave a file that it never opens again.
    """
    from mlflow import MlflowClient
    from sqlalchemy import make_url

    database = make_url(uri).database if uri.startswith("sqlite:") else None
    path = Path(database or ":memory:")
    if path.name == ":memory:" or path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in path.parent.glob(f".{path.name}.new*"):
        shutil.rmtree(left)
    # Another name for each attempt: MLflow remembers the connections to a database by its address.
    beside = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.new"))
    made = beside / path.name
    MlflowClient(f"sqlite:///{made}").search_registered_models(max_results=1)
    made.replace(path)
    shutil.rmtree(beside)
