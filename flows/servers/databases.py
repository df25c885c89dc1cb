"""The databases of servers for more than one machine: which they are, whether migrations are due, and doing these."""

import asyncio
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from flows.servers.database import make_database as make_prefect_database
from flows.servers.local import DATABASE, log_of, python, with_paths
from rammerge.cli.terminal import say
from rammerge.errors import InputError, RammergeError
from rammerge.system.home import home
from rammerge.system.locks import locked
from rammerge.system.redaction import redact
from tasks.records.connection import lock_file
from tasks.records.database import make_database as make_mlflow_database
from tasks.records.database import sqlite_file
from tasks.records.migrating import migrate_records, migrate_users, records_are_due, users_are_due

MLFLOW_ADDRESS = "MLFLOW_BACKEND_STORE_URI"
_ANSWER_SECONDS = 5.0
# What an address has to begin with, by option.
_KINDS = {
    "--prefect-db": ("postgresql+asyncpg://", "sqlite+aiosqlite:///"),
    "--mlflow-db": ("postgresql+psycopg://", "postgresql+psycopg2://", "postgresql://", "sqlite:///"),
}
_KINDS["--users-db"] = _KINDS["--mlflow-db"]


@dataclass(frozen=True)
class Databases:
    """Addresses, as SQLAlchemy writes them.

    Attributes:
        prefect: of Prefect's runs.
        mlflow: of MLflow's runs and registered models.
        users: of MLflow's users.
        named: the options with which the user named them, for a command that repeats them.
    """

    prefect: str
    mlflow: str
    users: str
    named: tuple[str, ...] = ()

    @classmethod
    def settle(cls, prefect: str | None, mlflow: str | None, users: str | None) -> "Databases":
        """Return the databases that options name, else the environment, else SQLite below rammerge's home.

        Raises:
            InputError: an address is of no kind that serves, or an option has a password in it.
        """
        options = {"--prefect-db": prefect, "--mlflow-db": mlflow, "--users-db": users}
        given = {option: address for option, address in options.items() if address is not None}
        for option, address in given.items():
            _check(option, address)
        return cls(
            prefect or os.environ.get(DATABASE) or f"sqlite+aiosqlite:///{home() / 'prefect' / 'prefect.db'}",
            mlflow or os.environ.get(MLFLOW_ADDRESS) or f"sqlite:///{home() / 'mlflow' / 'mlflow.db'}",
            users or f"sqlite:///{home() / 'mlflow' / 'users.db'}",
            tuple(word for pair in given.items() for word in pair),
        )

    @property
    def _has_users(self) -> bool:
        """Whether there is a database of users: it is named, or it is here."""
        file = sqlite_file(self.users)
        return "--users-db" in self.named or (file is not None and file.exists())

    def require_migrated(self) -> None:
        """Make SQLite databases that are missing, and require that all have the schema of what is installed.

        Raises:
            InputError: migrations are due, and the sentence has the command; or a database cannot be opened.
        """
        if self.prefect.startswith("sqlite"):
            with locked(log_of("prefect").with_suffix(".lock")):
                make_prefect_database()
        with locked(lock_file("database")):
            make_mlflow_database(self.mlflow)
        due = [who for who, is_due in self._due() if is_due]
        if due:
            same = " and ".join(self.named[::2])  # without the addresses, whose names of users messages hide
            raise InputError(
                f"the database of {' and of '.join(due)} needs migrations; make a backup, then run `rammerge migrate`"
                f"{f' with the same {same}' if same else ''}"
            )

    def _due(self) -> Iterator[tuple[str, bool]]:
        with _explained("Prefect", self.prefect):
            yield "Prefect", asyncio.run(_prefect_is_due(self.prefect))
        with _explained("MLflow", self.mlflow):
            yield "MLflow", records_are_due(self.mlflow)
        if self._has_users:
            with _explained("MLflow's users", self.users):
                yield "MLflow's users", users_are_due(self.users)

    def migrate(self) -> None:
        """Bring every database to the schema of what is installed: that of users where it is named or is here.

        Raises:
            RammergeError: a migration failed.
            InputError: a database cannot be opened.
        """
        say("migrating Prefect's database ...")
        with _explained("Prefect", self.prefect):
            asyncio.run(_heads(self.prefect))
        _migrate_prefect(self.prefect)
        say("migrating MLflow's database ...")
        with _explained("MLflow", self.mlflow):
            migrate_records(self.mlflow)
        if self._has_users:
            say("migrating the database of MLflow's users ...")
            with _explained("MLflow's users", self.users):
                migrate_users(self.users)


def require_migrated(databases: Databases) -> None:
    """Do `Databases.require_migrated` in a new process: this one, which stays, then has no need of 250 MB of modules.

    Raises:
        InputError: as there.
    """
    command = python("rammerge", "migrate", "--check", *databases.named)
    done = subprocess.run(command, env={**os.environ, **with_paths({})}, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        raise InputError((done.stderr.strip().splitlines() or ["error: no reason"])[-1].removeprefix("error: "))


def _check(option: str, address: str) -> None:
    from sqlalchemy import make_url
    from sqlalchemy.exc import ArgumentError

    kinds = _KINDS[option]
    try:
        password = make_url(address).password
    except ArgumentError:
        password = None
    if password is not None:
        raise InputError(
            f"{option} has a password in it, which every user of this machine could read; leave it out, and set "
            "PGPASSWORD, or PGPASSFILE to a file with passwords"
        )
    if not address.startswith(kinds):
        raise InputError(f"{option} {redact(address)}: write an address that begins with {', '.join(kinds)}")


async def _prefect_is_due(address: str) -> bool:
    from alembic.script import ScriptDirectory
    from prefect.server import database

    migrations = Path(database.__file__).parent / "_migrations"
    kind = "postgresql" if address.startswith("postgresql") else "sqlite"
    scripts = ScriptDirectory(migrations, version_locations=[str(migrations / "versions" / kind)])
    return await _heads(address) != set(scripts.get_heads())


async def _heads(address: str) -> set[str]:
    """Return the last migrations that were done in a database that is opened asynchronously."""
    from alembic.migration import MigrationContext
    from sqlalchemy.ext.asyncio import create_async_engine

    engine = create_async_engine(address, connect_args={"timeout": _ANSWER_SECONDS})
    try:
        async with engine.connect() as connection:
            return await connection.run_sync(lambda it: set(MigrationContext.configure(it).get_current_heads()))
    finally:
        await engine.dispose()


def _migrate_prefect(address: str) -> None:
    command = python("prefect", "server", "database", "upgrade", "-y")
    done = subprocess.run(command, env={**os.environ, DATABASE: address}, capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr or done.stdout).strip().splitlines()[-1:]
        raise RammergeError(f"Prefect's database {redact(address)} cannot be migrated: {redact(' '.join(last))}")


@contextmanager
def _explained(whose: str, address: str) -> Iterator[None]:
    """Replace what drivers raise, which have no common class, by a sentence."""
    try:
        yield
    except RammergeError:
        raise
    except ModuleNotFoundError as error:
        raise InputError(
            f"the database of {whose} needs the driver {error.name}, which is not installed; run "
            "`pip install 'rammerge[servers]'`"
        ) from error
    except Exception as error:
        reason = redact((str(error).strip() or type(error).__name__).splitlines()[0])
        raise InputError(
            f"the database of {whose}, {redact(address)}, cannot be opened ({reason}); start it, or correct its "
            "address or PGPASSWORD"
        ) from error
