"""Contract: whatever ends a run at the end of one of its steps, the next run of the recipe goes on from there.

The disk is full, or the process is killed, as the step's output is to get its name.
In the end one version is registered and serves, and one run is recorded.
"""

import errno
import os
import shutil
import signal
from collections.abc import Iterator
from functools import partial

import pytest

from flows.servers.local import prefect_server
from rammerge.store import Entry, making
from rammerge.system.servers import free_port
from tasks.records.connection import client
from tasks.records.registry import releases
from tasks.runtime.environment import activate
from tests.fixtures import forked
from tests.fixtures.pipeline import World

pytestmark = [pytest.mark.servers, pytest.mark.long]

KINDS = [
    *("rehearsal", "demands", "fetch", "preflight", "extract", "merge", "smoke", "suite", "evaluate"),
    *("compare", "gate", "report", "track", "register", "promote"),
]
# A step whose output is made of another's.
WHOLE = {"suite": "evaluate"}


@pytest.fixture(scope="module")
def prefect(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of one server for all tests: what is imported before forks has read it."""
    with pytest.MonkeyPatch.context() as patch:
        World(tmp_path_factory.mktemp("server")).enter(patch)
        activate()
        with prefect_server(port=free_port(), dashboard=False) as server:
            server.wait_until_healthy()
            patch.setenv("PREFECT_API_URL", f"{server.url}/api")
            yield f"{server.url}/api"


@pytest.fixture
def world(prefect: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A world whose runs are in processes that find Prefect's server running."""
    world = World(tmp_path_factory.mktemp("world"))
    with pytest.MonkeyPatch.context() as patch:
        world.enter(patch)
        activate()
        patch.setenv("PREFECT_API_URL", prefect)
        world.write(merges=["ram"])
        yield world


def run(world: World, fault: str, where: str) -> tuple[int, str]:
    """Run the recipe until a fault strikes at the end of a step; return the exit code, and the last line printed."""
    variables = world.environment() | {"PREFECT_API_URL": os.environ["PREFECT_API_URL"]}
    code, said = forked.run(variables, "run", str(world.recipe), before=partial(strike, fault, where))
    return code, said.strip().splitlines()[-1]


def strike(fault: str, where: str) -> None:
    """Have a fault strike in this process as the output of a kind of step is to get its name."""
    finish = making._finish

    def struck(kind: str, key: str, began: float, together: int) -> Entry:
        if kind == where and fault == "disk full":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if kind == where and fault == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        return finish(kind, key, began, together)

    making._finish = struck


@pytest.mark.parametrize("fault", ["disk full", "killed"])
def test_a_run_goes_on_after_a_fault_at_the_end_of_any_step(
    fault: str, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    for kind in KINDS:
        # A step that ran beside the one that failed has ended: nothing would be left of it to strike at.
        for done in {kind, WHOLE.get(kind, kind)}:
            shutil.rmtree(world.home / "store" / done, ignore_errors=True)
        code, said = run(world, fault, kind)
        expected = "error: no space left on the disk of" if fault == "disk full" else ""
        assert (code, said.startswith(expected)) == (1 if expected else -signal.SIGKILL, True), f"{kind}: {said}"
    assert run(world, "none", "")[0] == 0
    world.enter(monkeypatch)
    mlflow = client()
    experiment = mlflow.get_experiment_by_name("tiny").experiment_id
    parents = [run for run in mlflow.search_runs([experiment]) if "rammerge.pipeline" in run.data.tags]
    assert [parent.info.status for parent in parents] == ["FINISHED"]
    assert [(release.version, release.aliases) for release in releases("tiny")] == [(1, ("champion",))]
