"""Contract: a server that goes away while a run goes on costs at most the step that needed it.

The run waits for it, or ends with a sentence that names it. The next run of the recipe finishes, and nothing is
recorded, registered or promoted twice. A database that another process has locked for a while is waited for.
"""

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from unittest.mock import patch
from uuid import uuid4

import pytest

from benchmarks.soak.commands import Command
from benchmarks.soak.machine import Kept
from benchmarks.soak.world import served_mlflow
from flows.servers.local import prefect_server
from rammerge.system.servers import LOOPBACK, free_port
from tasks.records.connection import client
from tasks.records.registry import releases
from tasks.runtime.environment import activate
from tests.fixtures import forked
from tests.fixtures.pipeline import World
from tests.fixtures.waiting import wait_until

pytestmark = pytest.mark.servers
_LOCKED_SECONDS = 3.0


class Site:
    """A world with both servers, of which each keeps its port when it is started again."""

    def __init__(self, world: World) -> None:
        ports = free_port(), free_port()
        self.world = world
        self.prefect = Kept(partial(prefect_server, port=ports[0], dashboard=False))
        self.mlflow = Kept(partial(served_mlflow, ports[1], world.environment()["MLFLOW_TRACKING_URI"]))
        self.addresses = {
            "PREFECT_API_URL": f"http://{LOOPBACK}:{ports[0]}/api",
            "MLFLOW_TRACKING_URI": f"http://{LOOPBACK}:{ports[1]}",
        }

    def start(self, until: str, *, backoff: float = 0.05) -> Command:
        """Start a run, and return once it has printed that a step has ended."""
        variables = self.world.environment() | self.addresses | {"RAMMERGE_BACKOFF_SECONDS": str(backoff)}
        log = self.world.root / f"{uuid4().hex}.log"
        process = forked.start(variables, "run", str(self.world.recipe), log=log)
        wait_until(lambda: f"  {until} " in process.said or process.ended(0), f"the step {until}")
        assert f"  {until} " in process.said, f"ended before {until}: {process.said}"
        return process

    def end(self, process: Command) -> tuple[int, str]:
        """Wait for a run; return its exit code and all that it printed."""
        process.ended()
        assert "Traceback" not in process.said and "unexpected" not in process.said, process.said
        return process.code, process.said


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    world = World(tmp_path_factory.mktemp("world"))
    with pytest.MonkeyPatch.context() as patched:
        world.enter(patched)
        activate()
        site = Site(world)
        yield site
        site.mlflow.stop()
        site.prefect.stop()


def recorded(site: Site) -> tuple[int, list[int], list[int]]:
    """Return how many runs are on record, the registered versions, newest first, and the champions."""
    with patch.dict(os.environ, site.world.environment() | site.addresses):
        mlflow = client()
        found = mlflow.get_experiment_by_name("tiny")
        if found is None:
            return 0, [], []
        parents = [run for run in mlflow.search_runs([found.experiment_id]) if "rammerge.pipeline" in run.data.tags]
        assert all(parent.info.status == "FINISHED" for parent in parents)
        versions = releases("tiny")
        champions = [release.version for release in versions if "champion" in release.aliases]
        return len(parents), [release.version for release in versions], champions


@contextmanager
def one_more(site: Site) -> Iterator[None]:
    """Expect that within the context one run is recorded, one version registered, and that version promoted."""
    runs, versions, _ = recorded(site)
    yield
    new = len(versions) + 1
    assert recorded(site) == (runs + 1, [new, *versions], [new])


def test_mlflow_is_away_from_the_evaluation_on(site: Site) -> None:
    site.world.write(merges=["ram"])
    with one_more(site):
        process = site.start("evaluate base")
        site.mlflow.kill()
        code, said = site.end(process)
        assert code == 1 and f"MLflow at {site.addresses['MLFLOW_TRACKING_URI']} does not answer; start it" in said
        site.mlflow.start()
        code, _ = site.end(site.start("fetch base"))
        assert code == 0


def test_mlflow_is_back_before_the_last_attempt(site: Site) -> None:
    site.world.write(merges=["average"])
    with one_more(site):
        process = site.start("compare", backoff=20)  # long enough for a server to start again on a busy machine
        site.mlflow.kill()
        site.mlflow.start()
        code, _ = site.end(process)
        assert code == 0


def test_prefect_is_away_while_models_run(site: Site) -> None:
    site.world.write(merges=["ties"])
    with one_more(site):
        process = site.start("smoke ties")
        site.prefect.kill()
        site.prefect.start()
        code, said = site.end(process)
        if code:
            assert f"error: Prefect at {site.addresses['PREFECT_API_URL']} " in said
            code, _ = site.end(site.start("fetch base"))
        assert code == 0
    with closing(sqlite3.connect(site.world.home / "prefect" / "prefect.db")) as database:
        assert database.execute("SELECT count(*) FROM flow_run WHERE state_type = 'RUNNING'").fetchone() == (0,)


@pytest.mark.parametrize("name", ["prefect", "mlflow"])
def test_a_locked_database_is_waited_for(site: Site, name: str) -> None:
    site.world.write(merges=[{"prefect": "ram_plus", "mlflow": "ram_plus_soft"}[name]])
    with one_more(site):
        process = site.start("gate")
        with closing(sqlite3.connect(site.world.home / name / f"{name}.db", timeout=60)) as database:
            database.execute("BEGIN EXCLUSIVE")
            time.sleep(_LOCKED_SECONDS)
        code, _ = site.end(process)
        assert code == 0
