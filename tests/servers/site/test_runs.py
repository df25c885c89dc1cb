"""Contract of deployed runs on real servers: each ends in a state that says what came of it, and so do the pages.

A run that is cancelled while it merges leaves no process and no lock. The next one finishes its work, though every
connection to the database ends meanwhile, as in a restart of PostgreSQL or a failover.
"""

import fcntl
import re
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tasks.records.pages import VIEW
from tests.fixtures import forked
from tests.fixtures.browser import Browser
from tests.fixtures.pipeline import World
from tests.servers.site.conftest import MLFLOW_PASSWORD, PREFECT_LOGIN, Site, wait

pytestmark = [pytest.mark.servers, pytest.mark.long]

NIGHTLY, RUN = "merge-and-evaluate/nightly", "merge-and-evaluate/run"
# A merge that lasts as long as somebody holds it.
METHOD = '''
import time
from pathlib import Path
from rammerge import Block, Method, Params, Statistics, Update

HERE = Path(__file__).parent

class NoParams(Params):
    """There are none."""

def held(block: Block) -> Update:
    (HERE / "merging").touch()
    while (HERE / "hold").exists():
        time.sleep(0.02)
    return Update(block.deltas[0])

def one(params: NoParams, _: Statistics, __: str, agents: int) -> list[list[float]]:
    return [[1.0] * agents]

HELD = Method(name="held", summary="The first agent.", source="a test", params=NoParams, kernel=held, coefficients=one)
'''


@pytest.fixture(scope="module")
def held(world: World) -> Iterator[Path]:
    """Yield a recipe whose merge lasts as long as the file `hold` beside it is there."""
    (world.root / "waiting.py").write_text(METHOD)
    (world.root / "hold").touch()
    recipe = world.write(name="held", merges=["waiting:HELD"], trust=["waiting"], evaluation="none", gates=None)
    recipe = recipe.rename(world.root / "held.yaml")
    world.write(merges=["ram"])
    yield recipe
    (world.root / "hold").unlink(missing_ok=True)


@pytest.fixture(scope="module")
def begun(site: Site, held: Path) -> str:
    """Begin the merge that is to be cancelled before all else, because others can end while it waits."""
    return site.start(RUN, recipe=str(held))


@pytest.fixture(scope="module")
def scheduled(site: Site, world: World) -> str:
    """Put a recipe on the nightly deployment's schedule until a run of it has begun; return that once it has ended."""
    nightly = site.ask(f"/deployments/name/{NIGHTLY}")["id"]
    at_work = {"type": {"any_": ["PENDING", "RUNNING", "COMPLETED", "FAILED"]}}
    asked = {"flow_runs": {"deployment_id": {"any_": [nightly]}, "state": at_work}}
    # Often, because the scheduler passes over moments that are gone when it looks.
    when = {"interval": 20, "anchor_date": datetime.now(UTC).isoformat(), "timezone": "UTC"}
    schedule = {"active": True, "schedule": when, "parameters": {"recipe": str(world.recipe)}}
    (made,) = site.ask(f"/deployments/{nightly}/schedules", [schedule])
    wait(lambda: site.ask("/flow_runs/filter", asked), "the scheduled run")
    site.ask(f"/deployments/{nightly}/schedules/{made['id']}", {"active": False}, method="PATCH")
    run = site.ask("/flow_runs/filter", asked)[0]
    assert run["auto_scheduled"]
    site.end(run["id"])
    return str(run["id"])


@pytest.mark.usefixtures("begun")
def test_a_scheduled_recipe_is_merged_and_promoted(site: Site, scheduled: str) -> None:
    state = site.state(scheduled)
    assert (state["type"], state["name"]) == ("COMPLETED", "Completed"), state["message"]
    assert "Tiny version 1 is champion" in state["message"]
    assert "champion" in forked.finish(site.environment, "releases", "tiny")


@pytest.mark.usefixtures("scheduled")
def test_a_gate_refuses(site: Site, world: World) -> None:
    recipe = world.write(merges=["ram"], gates=[{"rule": "min_score", "value": 1.0}])
    state = site.end(site.start(RUN, recipe=str(recipe)))
    assert (state["type"], state["name"]) == ("COMPLETED", "Refused")
    assert "is not shown to reach 1 on average" in state["message"]


def test_a_cancelled_merge_ends_and_is_finished_by_the_next_run_which_outlives_every_connection(
    site: Site, world: World, held: Path, begun: str
) -> None:
    run, merging = begun, world.root / "merging"
    wait(merging.exists, "the merge")
    assert locks_held(site.home)
    site.ask(f"/flow_runs/{run}/set_state", {"state": {"type": "CANCELLING", "name": "Cancelling"}})
    assert site.end(run)["type"] == "CANCELLED"
    wait(lambda: not processes_of(run), "the end of the run's process")
    assert not locks_held(site.home)
    merging.unlink()
    again = site.start(RUN, recipe=str(held))
    wait(merging.exists, "the merge")
    assert site.database.drop_connections() > 0
    (world.root / "hold").unlink()
    state = site.end(again)
    assert state["type"] == "COMPLETED", state["message"]
    assert re.findall(r"^ *(\d+) ", forked.finish(site.environment, "releases", "held"), re.MULTILINE) == ["1"]


def test_the_pages_show_the_run(browser: Browser, site: Site, scheduled: str, tmp_path: Path) -> None:
    logged_in(browser, site.prefect)
    browser.show(f"{site.prefect}/runs/flow-run/{scheduled}", "tiny", "Completed", "Beginning flow run")
    browser.screenshot(tmp_path / "run.png")
    browser.show(f"{site.prefect}/artifacts", "tiny-leaderboard", "tiny-release")
    browser.screenshot(tmp_path / "artifacts.png")
    with as_user(browser, "admin", MLFLOW_PASSWORD):
        browser.show(f"{site.mlflow}/#/experiments{VIEW}", "tiny")
        browser.screenshot(tmp_path / "experiments.png")
        browser.show(f"{site.mlflow}/#/models/tiny{VIEW}", "champion")
        browser.screenshot(tmp_path / "model.png")


def logged_in(browser: Browser, prefect: str) -> None:
    """Give Prefect's pages the login, which they ask for in a form and keep."""
    browser.driver.get(prefect)
    browser.driver.execute_script("localStorage.setItem('prefect-password', btoa(arguments[0]))", PREFECT_LOGIN)


@contextmanager
def as_user(browser: Browser, name: str, password: str) -> Iterator[None]:
    """Send a name and a password with every request, as a browser does once its own window was answered."""
    login = f"Basic {b64encode(f'{name}:{password}'.encode()).decode()}"
    browser.driver.execute_cdp_cmd("Network.enable", {})
    browser.driver.execute_cdp_cmd("Network.setExtraHTTPHeaders", {"headers": {"Authorization": login}})
    yield
    browser.driver.execute_cdp_cmd("Network.setExtraHTTPHeaders", {"headers": {}})


def processes_of(run: str) -> list[str]:
    """Return the processes in whose environment a flow run is named."""
    found = []
    for directory in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if run.encode() in (directory / "environ").read_bytes():
                found.append(directory.name)
    return found


def locks_held(home: Path) -> list[Path]:
    """Return the locks of the store that somebody holds."""
    held = []
    for lock in home.glob("store/*/.locks/*"):
        with lock.open("ab") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                held.append(lock)
    return held
