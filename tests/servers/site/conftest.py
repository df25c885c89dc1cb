"""Everything that production has, once for the group: PostgreSQL, both servers with passwords, deployments, workers.

Processes that tests start get `Site.environment`, in which clients find the servers and their passwords.
"""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from rammerge.system.servers import end_with_parent
from tests.fixtures import forked
from tests.fixtures.pipeline import World
from tests.fixtures.waiting import PATIENCE_SECONDS
from tests.servers.site import postgresql
from tests.servers.site.postgresql import PASSWORD, PostgreSQL

CHECKOUT = Path(__file__).parents[3]
PREFECT_LOGIN, MLFLOW_PASSWORD = "operator:only-for-tests-9a2e", "only-for-tests-77d0"
DEPLOYMENTS = yaml.safe_load((CHECKOUT / "prefect.yaml").read_text())["deployments"]
SECRETS = {
    "PGPASSWORD": PASSWORD,
    "PREFECT_SERVER_API_AUTH_STRING": PREFECT_LOGIN,
    "MLFLOW_AUTH_ADMIN_PASSWORD": MLFLOW_PASSWORD,
}
READY = "ready: "
_POLL_SECONDS = 0.3


def wait(condition: Callable[[], object], what: str) -> None:
    """Return once `condition`, which asks a server, holds; `what` says in words what that is."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(_POLL_SECONDS)


class Site:
    """Servers, as `rammerge serve` runs them, and the home that their workers share."""

    def __init__(
        self,
        home: Path,
        database: PostgreSQL,
        *,
        options: Sequence[str] | None = None,
        secrets: Mapping[str, str] | None = None,
    ) -> None:
        """Take the options and the secrets of `rammerge serve`, by default three databases and all passwords."""
        self.home, self.database = home, database
        self.prefect = self.mlflow = ""
        self.refused: tuple[int, str]  # what came of an attempt to serve before the migrations
        addresses = {
            "--prefect-db": database.address("asyncpg", "prefect"),
            "--mlflow-db": database.address("psycopg", "mlflow"),
            "--users-db": database.address("psycopg", "users"),
        }
        self.options = [word for pair in addresses.items() for word in pair] if options is None else list(options)
        self.secrets = SECRETS if secrets is None else secrets

    @property
    def bare(self) -> dict[str, str]:
        """The environment without anything of Prefect and MLflow but this site's home."""
        bare = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "MLFLOW_"))}
        # What the tests' own processes can import, flows that a worker starts elsewhere can too.
        return {
            **bare,
            "RAMMERGE_HOME": str(self.home),
            "PYTHONPATH": str(CHECKOUT),
            "RAMMERGE_CHECKOUT": str(CHECKOUT),
        }

    @property
    def environment(self) -> dict[str, str]:
        """The environment of clients."""
        return {
            **self.bare,
            "PREFECT_API_URL": f"{self.prefect}/api",
            "PREFECT_API_AUTH_STRING": PREFECT_LOGIN,
            "MLFLOW_TRACKING_URI": self.mlflow,
            "MLFLOW_TRACKING_USERNAME": "admin",
            "MLFLOW_TRACKING_PASSWORD": MLFLOW_PASSWORD,
            "RAMMERGE_BACKOFF_SECONDS": "0.05",
            # The default of ten seconds is most of the time that a test would wait for a worker.
            "PREFECT_WORKER_QUERY_SECONDS": "1",
        }

    def rammerge(self, *words: str) -> tuple[int, str]:
        """Run a command of rammerge with the servers' secrets; return its exit code, and what it printed."""
        return forked.run({**self.bare, **self.secrets}, *words)

    def client(self, *words: str) -> str:
        """Run a module, such as prefect, as a client; return what it printed."""
        command = [sys.executable, "-m", *words]
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, cwd=CHECKOUT)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def ask(self, path: str, content: object = None, method: str = "") -> Any:
        """Return the answer of Prefect's API; `content` is posted."""
        body = None if content is None else json.dumps(content).encode()
        login = {"Authorization": f"Basic {b64encode(PREFECT_LOGIN.encode()).decode()}"}
        request = urllib.request.Request(
            f"{self.prefect}/api{path}",
            body,
            {"Content-Type": "application/json", **login},
            method=method or ("GET" if body is None else "POST"),
        )
        with urllib.request.urlopen(request, timeout=PATIENCE_SECONDS) as answer:
            text = answer.read()
        return json.loads(text) if text else None

    def start(self, deployment: str, **parameters: Any) -> str:
        """Ask for a run of a deployment (FLOW/NAME), and return the run's id."""
        found = self.ask(f"/deployments/name/{deployment}")
        return str(self.ask(f"/deployments/{found['id']}/create_flow_run", {"parameters": parameters})["id"])

    def state(self, run: str) -> dict[str, Any]:
        """Return the state of a flow run: its type, name and message."""
        return dict(self.ask(f"/flow_runs/{run}")["state"])

    def end(self, run: str) -> dict[str, Any]:
        """Wait until a flow run has ended, and return its state."""
        final = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}
        wait(lambda: self.state(run)["type"] in final, f"the end of run {run}")
        return self.state(run)

    def logs(self, run: str) -> str:
        """Return what a flow run logged."""
        found = self.ask("/logs/filter", {"logs": {"flow_run_id": {"any_": [run]}}, "limit": 200})
        return "\n".join(str(line["message"]) for line in found)


@contextmanager
def serving(site: Site, *options: str) -> Iterator["subprocess.Popen[str]"]:
    """Run `rammerge serve` while the context lasts, and fill in the addresses; it has printed that both answer."""
    process = subprocess.Popen(
        [sys.executable, "-m", "rammerge", "serve", "--port", "0", *site.options, *options],
        env={**site.bare, **site.secrets},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=end_with_parent,
    )
    try:
        assert process.stdout is not None and process.stderr is not None
        line = process.stdout.readline()
        assert line.startswith(READY), process.stderr.read()
        site.prefect, site.mlflow = (word.rstrip(",;") for word in line.split() if word.startswith("http"))
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            assert process.wait(PATIENCE_SECONDS) == 0, "Ctrl-C is the normal end"


@pytest.fixture(scope="session")
def database() -> Iterator[PostgreSQL]:
    """Yield a PostgreSQL server; skip, and say so, where it cannot be had."""
    programs = postgresql.find_programs()
    if programs is None:
        pytest.skip("NO POSTGRESQL: `apt-get install postgresql`, which .ci/run does; nothing of servers was tested")
    with postgresql.running(programs) as server:
        yield server


@pytest.fixture(scope="session")
def unmigrated(tmp_path_factory: pytest.TempPathFactory, database: PostgreSQL) -> Site:
    """Return a site whose databases are empty."""
    return Site(tmp_path_factory.mktemp("site") / "home", database)


@pytest.fixture(scope="session")
def site(unmigrated: Site) -> Iterator[Site]:
    """Yield a site with migrated databases, both servers, a worker for each pool, and every deployment."""
    unmigrated.refused = unmigrated.rammerge("serve", "--port", "0", *unmigrated.options)
    code, said = unmigrated.rammerge("migrate", *unmigrated.options)
    assert code == 0, said
    with ExitStack() as stack:
        stack.enter_context(serving(unmigrated))
        for pool in sorted({each["work_pool"]["name"] for each in DEPLOYMENTS}):
            stack.enter_context(_working(unmigrated, pool))
        unmigrated.client("prefect", "--no-prompt", "deploy", "--all")
        yield unmigrated


@contextmanager
def _working(site: Site, pool: str) -> Iterator[None]:
    """Run a worker, which makes its pool, while the context lasts."""
    log = site.home.parent / f"worker-{pool}.log"
    command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", pool, "--type", "process"]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, env=site.environment, stdout=output, stderr=output, preexec_fn=end_with_parent, cwd=CHECKOUT
        )
    try:
        pools = {"work_pools": {"name": {"any_": [pool]}}}
        wait(lambda: process.poll() is not None or site.ask("/work_pools/filter", pools), f"the pool {pool}")
        assert process.poll() is None, log.read_text()
        yield
    finally:
        process.terminate()
        process.wait(PATIENCE_SECONDS)


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Return tiny models, suites and a recipe; its own home is not used."""
    world = World(tmp_path_factory.mktemp("world"))
    world.write(merges=["ram"])
    return world
