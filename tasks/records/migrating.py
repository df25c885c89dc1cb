"""The databases of an MLflow server: whether they have the schema of the installed MLflow, and migrating them."""

import logging
from pathlib import Path

from tasks.records.database import open_database, sqlite_file

# Where MLflow keeps the migrations of each of its databases, and in which table the last one that was done.
_RECORDS = ("store/db_migrations", "alembic_version")
_USERS = ("server/auth/db/migrations", "alembic_version_auth")


def records_are_due(uri: str) -> bool:
    """Tell whether the database of runs and models lacks migrations; Exception if it cannot be opened."""
    return _are_due(uri, *_RECORDS)


def users_are_due(uri: str) -> bool:
    """Tell whether the database of users lacks migrations; Exception if it cannot be opened.

    An SQLite database that is missing lacks none: the server makes it.
    """
    file = sqlite_file(uri)
    return (file is None or file.exists()) and _are_due(uri, *_USERS)


def migrate_records(uri: str) -> None:
    """Bring the database of runs and models to the schema of the installed MLflow, as `mlflow db upgrade` does."""
    from mlflow.db import upgrade

    open_database(uri, write=True)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    upgrade.callback(uri)  # not as a command, whose arguments every user of the machine may read


def migrate_users(uri: str) -> None:
    """Bring the database of users to the schema of the installed MLflow."""
    from mlflow.server.auth.db.cli import upgrade

    open_database(uri, write=True)
    upgrade.callback(uri, "head")


def _are_due(uri: str, scripts: str, table: str) -> bool:
    import mlflow
    from alembic.migration import MigrationContext
    from alembic.script import ScriptDirectory
    from sqlalchemy import create_engine

    open_database(uri, write=False)
    engine = create_engine(uri)
    try:
        with engine.connect() as connection:
            done = MigrationContext.configure(connection, opts={"version_table": table}).get_current_heads()
    finally:
        engine.dispose()
    return set(done) != set(ScriptDirectory(Path(mlflow.__file__).parent / scripts).get_heads())
