"""Prefect's and MLflow's servers as child processes on loopback."""

import os
import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path

from flows.servers.database import make_database
from rammerge.system.home import home
from rammerge.system.servers import LOOPBACK, Server, running


def prefect_server(*, port: int, dashboard: bool) -> AbstractContextManager[Server]:
    """While the context lasts, serve Prefect's API (and its dashboard) over the database below rammerge's home."""
    settings = {
        "PREFECT_API_URL": f"http://{LOOPBACK}:{port}/api",
        "PREFECT_SERVER_UI_ENABLED": str(dashboard).lower(),
        # A second of processor time on a new database, for pages that only the dashboard has.
        "PREFECT_SERVER_REGISTER_BLOCKS_ON_START": str(dashboard).lower(),
        "PREFECT_SERVER_UI_API_URL": f"http://{LOOPBACK}:{port}/api",
    }
    return running(
        "prefect",
        _python("flows.servers.prefect_process", LOOPBACK, str(port)),
        port=port,
        health="/api/health",
        log=_log("prefect"),
        settings=_with_paths(settings),
        prepare=make_database,
    )


def mlflow_server(*, port: int) -> AbstractContextManager[Server]:
    """While the context lasts, serve MLflow's dashboard over the database that the environment names."""
    settings = {
        # By the environment, because every user of the machine may read the arguments of a process.
        "MLFLOW_BACKEND_STORE_URI": os.environ["MLFLOW_TRACKING_URI"],
        # Without the job runner MLflow starts in half the time and needs two processes instead of ten.
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
    command = _python("mlflow", "server", "--host", LOOPBACK, "--port", str(port), "--workers", "1")
    command += ["--default-artifact-root", (home() / "mlflow" / "artifacts").as_uri()]
    return running(
        "mlflow",
        command,
        port=port,
        health="/health",
        log=_log("mlflow"),
        settings=_with_paths(settings),
    )


def _python(module: str, *arguments: str) -> list[str]:
    return [sys.executable, "-P", "-m", module, *arguments]


def _with_paths(settings: Mapping[str, str]) -> dict[str, str]:
    """Add the paths to import from: what this process can import, the other can."""
    return {"PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path)), **settings}


def _log(name: str) -> Path:
    return home() / "logs" / f"{name}-server.log"
