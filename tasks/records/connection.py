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
    """Return the lock file for changes of `what` in MLflow."""
    return home() / "mlflow" / f"{what}.lock"


def client() -> "MlflowClient":
    """Return a client of the tracking server in the environment, or of the local database."""
    from mlflow import MlflowClient

    with locked(lock_file("database")):  # two processes cannot create the tables at once
        _make_database(os.environ.get("MLFLOW_TRACKING_URI", ""))
        mlflow = MlflowClient()
        mlflow.search_registered_models(max_results=1)
    return mlflow


def _make_database(uri: str) -> None:
    """Create the SQLite database of `uri` if it is missing, completely or not at all.

    MLflow creates its tables one by one. After a kill or a full disk in between, MLflow could not open the file again.
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
    # Each attempt uses a new name, because MLflow caches connections by the database's address.
    beside = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.new"))
    made = beside / path.name
    MlflowClient(f"sqlite:///{made}").search_registered_models(max_results=1)
    made.replace(path)
    shutil.rmtree(beside)
