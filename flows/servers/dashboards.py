"""`rammerge ui`: both dashboards over the databases of `rammerge run`, until the user ends them."""

import os
import signal
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from flows.servers.local import Server, answers, free_port, mlflow_server, prefect_server
from rammerge.cli.terminal import say
from rammerge.errors import RammergeError
from rammerge.system.atomic import write_text
from rammerge.system.home import home
from tasks.runtime.environment import tracking_server

_WATCH_SECONDS = 1.0


def serve(port: int) -> None:
    """Start both servers, print their addresses, and stop them on Ctrl-C or SIGTERM.

    If the environment names a server of the user, only its address is printed.

    Raises:
        RammergeError: a server died; the message names its log.
    """
    ended = threading.Event()
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, lambda *_: ended.set())
    prefect_url = os.environ.get("PREFECT_API_URL", "").removesuffix("/api")
    mlflow_url = tracking_server() or ""
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
        print(f"Prefect  {prefect_url}/runs   every run, its steps and artifacts")
        print(f"MLflow   {mlflow_url}/#/experiments   scores, figures and registered models")
        if servers:
            print("Ctrl-C ends them.", flush=True)
            _watch(servers, ended)


def _watch(servers: Sequence[Server], ended: threading.Event) -> None:
    """Wait until `ended` is set. Until then a file holds the Prefect server's address, for runs to find it."""
    for server in servers:
        if server.name == "prefect":
            write_text(_address_file(), server.url)
    try:
        while not ended.wait(_WATCH_SECONDS):
            for server in servers:
                if server.process.poll() is not None:
                    raise RammergeError(f"{server.name} stopped (code {server.process.returncode}); see {server.log}")
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
