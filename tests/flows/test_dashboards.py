"""Contract of `rammerge ui`: the dashboards, as a browser shows them, have the run and the champion."""

from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from tests.fixtures.browser import Browser
from tests.fixtures.pipeline import World
from tests.fixtures.program import dashboards, finish, starting


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """Serve a world in which the recipe was run once; yield Prefect's and MLflow's addresses."""
    world = World(tmp_path_factory.mktemp("world"))
    with starting(world) as start:
        finish(start("run", str(world.recipe)))
        addresses = [urlsplit(address) for address in dashboards(start("ui", "--port", "0"))]
        prefect, mlflow = (f"{address.scheme}://{address.netloc}" for address in addresses)
        yield prefect, mlflow


def test_the_dashboards_show_the_run_and_the_champion_in_a_browser(servers: tuple[str, str], browser: Browser) -> None:
    prefect, mlflow = servers
    browser.show(f"{prefect}/runs", "merge-and-evaluate", "Completed")
    browser.show(f"{prefect}/artifacts", "tiny-leaderboard")
    browser.show(f"{mlflow}/#/models/tiny", "champion")
