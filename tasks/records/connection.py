"""The connection to MLflow: the tracking server that the environment names, or rammerge's own database."""

import os
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from rammerge.errors import InputError, RammergeError
from rammerge.system.home import home
from rammerge.system.locks import locked
from tasks.records.database import is_database, make_database, open_database, require_place, sqlite_file
from tasks.records.trouble import explained, impatient

if TYPE_CHECKING:
    from mlflow import MlflowClient

_answered: set[str] = set()


def lock_file(what: str) -> Path:
    """Return the lock file for changes of `what` in MLflow."""
    return home() / "mlflow" / f"{what}.lock"


def client(*, write: bool = False) -> "MlflowClient":
    """Return a client of the tracking server in the environment, or of the local database.

    Args:
        write: whether a local database has to be one that can be written to.

    Raises:
        RammergeError: it does not answer, or refuses; found within seconds.
    """
    from mlflow import MlflowClient

    uri = os.environ.get("MLFLOW_TRACKING_URI", "")
    with locked(lock_file("database")), explained():  # two processes cannot create the tables at once
        make_database(uri)
        if is_database(uri) and (write or uri not in _answered):
            open_database(uri, write=write)
        mlflow = MlflowClient()
        with nullcontext() if uri in _answered else impatient():
            mlflow.search_registered_models(max_results=1)
    _answered.add(uri)
    return mlflow


def require_mlflow() -> None:
    """Ask MLflow for a sign of life, with the credentials that a run will use.

    Raises:
        InputError: it does not answer, or refuses: the sentence has the fix.
    """
    uri = os.environ.get("MLFLOW_TRACKING_URI", "")
    with explained():
        database = sqlite_file(uri)
    if database is not None and not database.exists():
        require_place(database)  # it is made when it is needed
        return
    try:
        client(write=True)
    except InputError:
        raise
    except RammergeError as error:
        raise InputError(str(error)) from error
