"""`rammerge ui`: both dashboards over the stores of `rammerge run`, until someone ends it."""

import signal
import threading
from pathlib import Path

from rammerge.atomic import write_text
from rammerge.cli.servers import answers, free_port, mlflow_server, prefect_server
from rammerge.cli.terminal import say
from rammerge.errors import RammergeError
from rammerge.home import home

_WATCH_SECONDS = 1.0


def serve(port: int) -> None:
    """Start both servers, print their addresses, and stop them on Ctrl-C or SIGTERM.

    Raises:
        RammergeError: a server died; its log is named.
    """
    ended = threading.Event()
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, lambda *_: ended.set())
    say("starting the dashboards (some seconds) ...")
    first = free_port(port)
    with prefect_server(port=first, dashboard=True) as prefect, mlflow_server(port=free_port(first + 1)) as mlflow:
        for server in (prefect, mlflow):
            server.wait_until_healthy(ended)
        if not ended.is_set():
            print(f"Prefect  {prefect.url}/runs       every run, its steps and artifacts")
            print(f"MLflow   {mlflow.url}/#/experiments   scores, figures and registered models")
            print("Ctrl-C stops both.", flush=True)
        write_text(_address_file(), prefect.url)
        try:
            while not ended.wait(_WATCH_SECONDS):
                for server in (prefect, mlflow):
                    if server.process.poll() is not None:
                        raise RammergeError(
                            f"{server.name} stopped (code {server.process.returncode}); see {server.log}"
                        )
        finally:
            _address_file().unlink(missing_ok=True)
            say("stopping ...")


def running_dashboard() -> str | None:
    """Return the address of the Prefect server of a running `rammerge ui` over this home, or None."""
    try:
        address = _address_file().read_text(encoding="utf-8")
    except OSError:
        return None
    return address if answers(f"{address}/api/health") else None


def _address_file() -> Path:
    return home() / "prefect" / "dashboard-address"
