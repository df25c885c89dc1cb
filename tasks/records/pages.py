"""Addresses of the dashboards' pages, by which a record in one of them leads to the other.

The addresses of the user's own servers are known. The servers of `rammerge ui` may not run yet: they are taken to be
where they ran last or, before that, where they will run unless told otherwise.
"""

import json
from pathlib import Path
from typing import NamedTuple

from rammerge.system.atomic import write_json
from rammerge.system.home import home
from rammerge.system.redaction import without_credentials
from tasks.runtime.environment import tracking_server

PORT = 4200  # of Prefect's dashboard; MLflow's is the next one
# Without it, MLflow opens its view of traces and prompts, of which there are none.
VIEW = "?workflowType=machine_learning"


class Dashboards(NamedTuple):
    """Where the dashboards are, without a trailing slash."""

    prefect: str
    mlflow: str


def dashboards() -> Dashboards:
    """Return where `rammerge ui` served the dashboards last, or where it will."""
    try:
        return Dashboards(**json.loads(_memory().read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return Dashboards(f"http://127.0.0.1:{PORT}", f"http://127.0.0.1:{PORT + 1}")


def remember(served: Dashboards) -> None:
    """Remember where the dashboards are, for the links of later runs."""
    write_json(_memory(), served._asdict())


def flow_run_page(run: str) -> str:
    """Return the address of a flow run in Prefect's dashboard."""
    from prefect.utilities.urls import url_for

    # Prefect knows its dashboard's address, unless this process has started a server of its own, without one.
    return without_credentials(str(url_for("flow-run", obj_id=run, default_base_url=dashboards().prefect)))


def run_fragment(experiment: str, run: str) -> str:
    """Return where a run is in MLflow's dashboard: a link for MLflow's own pages, wherever they are served."""
    return f"#/experiments/{experiment}/runs/{run}{VIEW}"


def file_fragment(experiment: str, run: str, file: str) -> str:
    """Return where a file of a run is shown in MLflow's dashboard, like `run_fragment`."""
    return f"#/experiments/{experiment}/runs/{run}/artifacts/{file}{VIEW}"


def version_fragment(name: str, version: int) -> str:
    """Return where a version of a registered model is in MLflow's dashboard, like `run_fragment`."""
    return f"#/models/{name}/versions/{version}{VIEW}"


def mlflow_page(fragment: str) -> str:
    """Return the address of a place in MLflow's dashboard."""
    return f"{_mlflow()}/{fragment}"


def _mlflow() -> str:
    if (server := tracking_server()) is None:
        return dashboards().mlflow
    return without_credentials(server).rstrip("/")


def _memory() -> Path:
    return home() / "dashboards.json"
