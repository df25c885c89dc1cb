"""Commands of whoever keeps it running: `rammerge serve`, `migrate`, `backup` and `restore`."""

import os
from pathlib import Path
from typing import Annotated

import typer

from flows.cli.preparing import prepare
from tasks.records.pages import PORT

PrefectDatabase = Annotated[
    str | None,
    typer.Option(
        "--prefect-db", metavar="URL", help="Prefect's database: postgresql+asyncpg://USER@HOST/NAME. Default: SQLite."
    ),
]
MlflowDatabase = Annotated[
    str | None,
    typer.Option(
        "--mlflow-db", metavar="URL", help="MLflow's database: postgresql+psycopg://USER@HOST/NAME. Default: SQLite."
    ),
]
UsersDatabase = Annotated[
    str | None,
    typer.Option("--users-db", metavar="URL", help="The database of MLflow's users, like MLflow's. Default: SQLite."),
]


def serve(
    host: Annotated[
        str, typer.Option(help="Interface to listen on; others than loopback need passwords.", metavar="ADDRESS")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port of Prefect; 0 for any.", min=0, max=65535)] = PORT,
    mlflow_port: Annotated[
        int | None, typer.Option(help="Port of MLflow. Default: the one after Prefect's.", min=0, max=65535)
    ] = None,
    prefect_db: PrefectDatabase = None,
    mlflow_db: MlflowDatabase = None,
    users_db: UsersDatabase = None,
    artifacts: Annotated[
        str | None, typer.Option(help="Where MLflow keeps files. Default: below RAMMERGE_HOME.", metavar="DIR|s3://...")
    ] = None,
) -> None:
    """Serve Prefect and MLflow for other users and machines until Ctrl-C.

    Passwords are taken from the environment: PREFECT_SERVER_API_AUTH_STRING (NAME:PASSWORD) and
    MLFLOW_AUTH_ADMIN_PASSWORD for the servers, PGPASSWORD or PGPASSFILE for their databases.
    """
    prepare()
    from flows.servers.databases import Databases
    from flows.servers.serving import Serving

    databases = Databases.settle(prefect_db, mlflow_db, users_db)
    Serving(databases, host, port, (port and port + 1) if mlflow_port is None else mlflow_port, artifacts).serve()


def migrate(
    prefect_db: PrefectDatabase = None,
    mlflow_db: MlflowDatabase = None,
    users_db: UsersDatabase = None,
    check: Annotated[bool, typer.Option("--check", help="Only say what is due; exit code 2 if something is.")] = False,
) -> None:
    """Bring the servers' databases to the schema of the installed Prefect and MLflow. Stop `serve` before."""
    prepare()
    from flows.servers.databases import Databases
    from rammerge.cli.terminal import say

    databases = Databases.settle(prefect_db, mlflow_db, users_db)
    if check:
        databases.require_migrated()
    else:
        databases.migrate()
        say("every database has the present schema")


def backup(directory: Annotated[Path, typer.Argument(help="A new directory.", metavar="DIR")]) -> None:
    """Copy everything below RAMMERGE_HOME that cannot be made again, also while runs go on."""
    from rich.filesize import decimal

    from flows.backup import back_up
    from rammerge.cli.terminal import say

    kept = back_up(directory)
    print(f"{directory}: {kept.files} files, {decimal(kept.size)}, of {kept.home}")
    for who, variable in (("Prefect", "PREFECT_API_URL"), ("MLflow", "MLFLOW_TRACKING_URI")):
        if os.environ.get(variable):
            say(f"{variable} is set: what that {who} keeps elsewhere is not in it; see docs/servers.md")


def restore(directory: Annotated[Path, typer.Argument(help="What `backup` wrote.", metavar="DIR")]) -> None:
    """Make RAMMERGE_HOME, which must be new, of a backup whose every file is compared with its hash."""
    from rich.filesize import decimal

    from flows.backup import restore as restore_home
    from rammerge.system.home import home

    kept = restore_home(directory)
    print(f"{home()}: {kept.files} files, {decimal(kept.size)}, intact")
