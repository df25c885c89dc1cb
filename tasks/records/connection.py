"""The connection to MLflow: the tracking server that the environment names, or rammerge's own database."""

import os
import shutil
import tempfile
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from rammerge.errors import InputError, RammergeError
from rammerge.system.home import home
from rammerge.system.locks import locked
from tasks.records.trouble import explained, impatient

if TYPE_CHECKING:
    from mlflow import MlflowClient


_DATABASE_SERVERS = ("postgresql", "mysql", "mssql")
_answered: set[str] = set()


def lock_file(what: str) -> Path:
    """Return the lock file for changes of `what` in MLflow."""
    return home() / "mlflow" / f"{what}.lock"


def client() -> "MlflowClient":
    """Return a client of the tracking server in the environment, or of the local database.

    Raises:
        RammergeError: it does not answer, or refuses; found within seconds.
    """
    from mlflow import MlflowClient

    uri = os.environ.get("MLFLOW_TRACKING_URI", "")
    with locked(lock_file("database")), explained():  # two processes cannot create the tables at once
        _make_database(uri)
        mlflow = MlflowClient()
        with nullcontext() if uri in _answered else impatient():
            _open_database(uri)
            mlflow.search_registered_models(max_results=1)
    _answered.add(uri)
    return mlflow


def require_mlflow() -> None:
    """Ask MLflow for a sign of life, with the credentials that a run will use.

    Raises:
        InputError: it does not answer, or refuses: the sentence has the fix.
    """
    uri = os.environ.get("MLFLOW_TRACKING_URI", "")
    if (database := _sqlite_file(uri)) is not None and not database.exists():
        return  # made when it is needed
    try:
        client()
    except InputError:
        raise
    except RammergeError as error:
        raise InputError(str(error)) from error


def _open_database(uri: str) -> None:
    """Connect once to a database that is a server: MLflow itself would try for minutes."""
    from sqlalchemy import create_engine

    if uri.startswith(_DATABASE_SERVERS):
        engine = create_engine(uri)
        try:
            engine.connect().close()
        finally:
            engine.dispose()


def _sqlite_file(uri: str) -> Path | None:
    from sqlalchemy import make_url

    database = make_url(uri).database if uri.startswith("sqlite:") else None
    return Path(database) if database and database != ":memory:" else None


def _make_database(uri: str) -> None:
    """Create the SQLite database of `uri` if it is missing, completely or not at all.

    MLflow creates its tables one by one. After a kill or a full disk in between, MLflow could not open the file again.
    """
    from mlflow import MlflowClient

    path = _sqlite_file(uri)
    if path is None or path.exists():
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
