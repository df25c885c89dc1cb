"""Prefect's and MLflow's servers as child processes: on loopback unless a different host is given."""

import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import MappingProxyType

from flows.servers.database import make_database
from rammerge.system.home import home
from rammerge.system.servers import LOOPBACK, Server, address_of, running

DATABASE = "PREFECT_SERVER_DATABASE_CONNECTION_URL"
_SERVICES = "PREFECT_SERVER_SERVICES"


def prefect_server(
    *,
    port: int,
    dashboard: bool,
    host: str = LOOPBACK,
    health: str = "/api/health",
    settings: Mapping[str, str] = MappingProxyType({}),
) -> AbstractContextManager[Server]:
    """While the context lasts, serve Prefect's API (and its dashboard).

    Its database is the one below rammerge's home unless `settings`, more environment variables, name a different one.
    """
    api = f"{address_of(host, port)}/api"
    defaults = {
        "PREFECT_API_URL": api,
        "PREFECT_SERVER_UI_ENABLED": str(dashboard).lower(),
        "PREFECT_SERVER_UI_API_URL": api,
        # Checks the types of calls that nothing here makes, and compiles their modules anew at each start.
        "PY_KEY_VALUE_DISABLE_BEARTYPE": "true",
        **({} if dashboard else of_one_run()),
    }
    return running(
        "prefect",
        python("flows.servers.prefect_process", host, str(port)),
        url=address_of(host, port),
        health=health,
        log=log_of("prefect"),
        settings=with_paths({**defaults, **settings}),
        prepare=(lambda: None) if DATABASE in settings else make_database,
    )


def of_one_run() -> dict[str, str]:
    """Return the settings of a server that lives as long as one run, except for those that the user has set.

    A run has neither schedules nor workers of pools on such a server, so it does without what watches over these. The
    next server that stays, with a dashboard, catches up. Triggers of automations, and what keeps events, remain.
    """
    watching = ("SCHEDULER", "LATE_RUNS", "PAUSE_EXPIRATIONS", "CANCELLATION_CLEANUP", "FOREMAN", "REPOSSESSOR")
    settings = {
        **{f"{_SERVICES}_{service}_ENABLED": "false" for service in watching},
        # A second of processor time on a new database, for pages that only the dashboard has; and to see whether there
        # are new ones, Prefect would import all of its integrations, such as Dask's.
        "PREFECT_SERVER_REGISTER_BLOCKS_ON_START": "false",
        "PREFECT_MEMOIZE_BLOCK_AUTO_REGISTRATION": "false",
        # A step has three states: it is pending, it runs, it ends. Writing them together takes less time than each by
        # itself. What is left over is written after a second.
        f"{_SERVICES}_TASK_RUN_RECORDER_BATCH_SIZE": "3",
        f"{_SERVICES}_TASK_RUN_RECORDER_FLUSH_INTERVAL": "1",
    }
    return {name: value for name, value in settings.items() if name not in os.environ}


def mlflow_server(
    *,
    port: int,
    host: str = LOOPBACK,
    options: Sequence[str] = (),
    settings: Mapping[str, str] = MappingProxyType({}),
) -> AbstractContextManager[Server]:
    """While the context lasts, serve MLflow's API and dashboard over the database that the environment names.

    Args:
        port: where it listens.
        host: the interface on which it listens.
        options: of the command `mlflow server`; without any, files are kept below rammerge's home.
        settings: more environment variables.
    """
    defaults = {
        # By the environment, because every user of the machine may read the arguments of a process.
        "MLFLOW_BACKEND_STORE_URI": os.environ["MLFLOW_TRACKING_URI"],
        # Without the job runner MLflow starts in half the time and needs two processes instead of ten.
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
    command = python("mlflow", "server", "--host", host, "--port", str(port), "--workers", "1")
    command += options or ["--default-artifact-root", artifacts().as_uri()]
    return running(
        "mlflow",
        command,
        url=address_of(host, port),
        health="/health",
        log=log_of("mlflow"),
        settings=with_paths({**defaults, **settings}),
    )


def artifacts() -> Path:
    """Return the directory for MLflow's files below rammerge's home."""
    return home() / "mlflow" / "artifacts"


def log_of(name: str) -> Path:
    """Return the log of a server. Beside it lies the lock that a server holds while it starts."""
    return home() / "logs" / f"{name}-server.log"


def python(module: str, *arguments: str) -> list[str]:
    """Return the command that runs a module with this Python."""
    return [sys.executable, "-P", "-m", module, *arguments]


def with_paths(settings: Mapping[str, str]) -> dict[str, str]:
    """Add the paths to import from: what this process can import, the other can."""
    return {"PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path)), **settings}
