"""`rammerge ui`: both dashboards over the databases of `rammerge run`, until the user ends them."""

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from flows.servers.attending import attend, ended_by_user
from flows.servers.local import mlflow_server, prefect_server
from rammerge.cli.terminal import say
from rammerge.system.atomic import write_text
from rammerge.system.home import home
from rammerge.system.redaction import without_credentials
from rammerge.system.servers import Server, answers, free_port
from tasks.records import pages
from tasks.runtime.environment import tracking_server

_SHOWN = 5


def serve(port: int) -> None:
    """Start both servers, print their addresses, and stop them on Ctrl-C or SIGTERM.

    If the environment names a server of the user, only its address is printed.

    Raises:
        RammergeError: a server died; the message names its log.
    """
    ended = ended_by_user()
    prefect_url = without_credentials(os.environ.get("PREFECT_API_URL", "")).removesuffix("/api")
    mlflow_url = without_credentials(tracking_server() or "")
    with ExitStack() as stack:
        servers: list[Server] = []
        if not prefect_url:
            servers.append(stack.enter_context(prefect_server(port=free_port(port), dashboard=True)))
            prefect_url = servers[-1].url
        if not mlflow_url:
            servers.append(stack.enter_context(mlflow_server(port=free_port(port and port + 1))))
            mlflow_url = servers[-1].url
        if servers:
            say("starting the dashboards, which takes a few seconds ...")
        for server in servers:
            server.wait_until_healthy(ended)
        if ended.is_set():
            return
        if servers:
            pages.remember(pages.Dashboards(prefect_url, mlflow_url))
        print("\n".join(_places(prefect_url, mlflow_url)))
        if servers:
            print("Ctrl-C ends them.", flush=True)
            with _found_by_runs(servers):
                attend(servers, ended)


def _places(prefect: str, mlflow: str) -> list[str]:
    """Return lines with addresses of what people look for, of MLflow's own start page only if nothing is recorded."""
    places = [("Prefect", f"{prefect}/runs", "every run, its steps and artifacts")]
    recorded = [] if tracking_server() else _recorded(mlflow)
    places += recorded or [("MLflow", f"{mlflow}/#/experiments{pages.VIEW}", "scores, figures and registered models")]
    width = max(len(address) for _, address, _ in places)
    return [f"{who:<7}  {address:<{width}}  {what}" for who, address, what in places]


def _recorded(mlflow: str) -> list[tuple[str, str, str]]:
    """Return the experiments and registered models that were written to last: who serves them, where, and what."""
    from tasks.records.connection import client

    database = client()
    experiments = database.search_experiments(max_results=_SHOWN, order_by=["last_update_time DESC"])
    models = database.search_registered_models(max_results=_SHOWN, order_by=["last_updated_timestamp DESC"])
    return [
        ("MLflow", f"{mlflow}/#/experiments/{it.experiment_id}/runs{pages.VIEW}", f"runs of {it.name}: scores, figures")
        for it in experiments
        if it.name != "Default"
    ] + [("MLflow", f"{mlflow}/#/models/{it.name}{pages.VIEW}", f"versions of {it.name}") for it in models]


@contextmanager
def _found_by_runs(servers: Sequence[Server]) -> Iterator[None]:
    """While the context lasts, keep the Prefect server's address, if it is ours, in a file for runs to find."""
    for server in servers:
        if server.name == "prefect":
            write_text(_address_file(), server.url)
    try:
        yield
    finally:
        _address_file().unlink(missing_ok=True)


def running_dashboard() -> str | None:
    """Return the address of the Prefect server of a running `rammerge ui` over this home, or None."""
    try:
        address = _address_file().read_text(encoding="utf-8")
    except OSError:
        return None
    return address if answers(f"{address}/api/health") else None


def _address_file() -> Path:
    return home() / "prefect" / "dashboard-address"
