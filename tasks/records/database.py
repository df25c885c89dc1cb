"""The database in which MLflow keeps its records, where rammerge opens it itself: made whole, and looked at first.

MLflow takes a second of processor time to make one, and waits for the disk at each table. What it makes, for one
version of MLflow, lies beside this file.

    python -m tasks.records.database    writes that file anew, once constraints.txt names a different MLflow
"""

import shutil
import tempfile
from importlib.metadata import version
from pathlib import Path

from rammerge.errors import InputError
from rammerge.system.atomic import write_text
from rammerge.system.interrupts import removed_afterwards
from rammerge.system.sqlite import make_from, statements_of

SCHEMA = Path(__file__).with_name("mlflow.sql")
_HEAD = "-- What MLflow {} makes of an empty SQLite database.\n"

# How a driver is told to give up on a server that accepts and never answers, in seconds.
_PATIENCE = {"psycopg2": "connect_timeout", "psycopg": "connect_timeout", "mysqldb": "connect_timeout"}
_PATIENCE |= {"pymysql": "connect_timeout", "pg8000": "timeout", "pyodbc": "timeout"}
_ANSWER_SECONDS = 5


def is_database(uri: str) -> bool:
    """Tell whether `uri` is the address of a database rather than of a tracking server."""
    return uri.startswith(("sqlite:", "postgresql", "mysql", "mssql"))


def sqlite_file(uri: str) -> Path | None:
    """Return the file of an SQLite database, or None for anything else."""
    from sqlalchemy import make_url

    database = make_url(uri).database if uri.startswith("sqlite:") else None
    return Path(database) if database and database != ":memory:" and not database.startswith("file:") else None


def open_database(uri: str, *, write: bool) -> None:
    """Connect once: MLflow itself would try for minutes.

    Args:
        uri: of the database.
        write: whether SQLite's file has to be one that can be written to, now.

    Raises:
        SQLAlchemyError: it cannot be opened.
    """
    from sqlalchemy import create_engine, make_url

    url = make_url(uri)
    patience = _PATIENCE.get(url.get_driver_name())
    engine = create_engine(url, connect_args={patience: _ANSWER_SECONDS} if patience else {})
    try:
        with engine.connect() as connection:
            if url.get_backend_name() == "sqlite":
                connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "PRAGMA schema_version")
    finally:
        engine.dispose()


def require_place(path: Path) -> None:
    """Require that an SQLite database can be made at `path`; its directory is made.

    Raises:
        InputError: it cannot.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise InputError(
            f"MLflow's database {path} cannot be made ({path.parent}: {error.strerror}); correct MLFLOW_TRACKING_URI"
        ) from error


def make_database(uri: str) -> None:
    """Create the SQLite database of `uri` if it is missing, completely or not at all.

    MLflow creates its tables one by one. After a kill or a full disk in between, MLflow could not open the file again.

    Raises:
        InputError: its directory cannot be written to.
        RammergeError: there is no room for it.
    """
    path = sqlite_file(uri)
    if path is None or path.exists():
        return
    require_place(path)
    for left in path.parent.glob(f".{path.name}.new*"):
        shutil.rmtree(left)
    # Each attempt uses a new name, because MLflow caches connections by the database's address.
    beside = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.new"))
    with removed_afterwards(beside):
        made = beside / path.name
        script = SCHEMA.read_text(encoding="utf-8")
        if script.startswith(_HEAD.format(version("mlflow"))):
            fix = "make room there, or correct MLFLOW_TRACKING_URI"
            make_from(script, made, what=f"MLflow's database {path}", fix=fix)
        else:
            let_mlflow_make(made)
        made.replace(path)


def let_mlflow_make(path: Path) -> None:
    """Have the installed MLflow make a database."""
    from mlflow import MlflowClient

    MlflowClient(f"sqlite:///{path}").search_registered_models(max_results=1)


def write_schema() -> None:
    """Write the statements that make the database that the installed MLflow makes.

    Its first experiment is left out, because it has a time and a directory. MLflow makes one where there is none.
    """
    with tempfile.TemporaryDirectory() as scratch:
        made = Path(scratch) / "mlflow.db"
        let_mlflow_make(made)
        statements = [each for each in statements_of(made) if not each.startswith('INSERT INTO "experiments"')]
    write_text(SCHEMA, "\n".join([_HEAD.format(version("mlflow")).rstrip(), *statements, ""]))


def is_newer_schema(revision: str) -> bool:
    """Tell whether the MLflow that is installed here is older than a database of this schema."""
    from alembic.script import ScriptDirectory
    from mlflow.store import db_migrations

    known = ScriptDirectory(next(iter(db_migrations.__path__))).walk_revisions()
    return revision not in {step.revision for step in known}


if __name__ == "__main__":
    write_schema()
