"""Contract of the dashboards, as a browser of desktop width shows them: whoever looks finds the run and the champion.

No table is cut, and what is shown in one dashboard is not missing in the other.
"""

import json
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import pytest

from tasks.records.pages import VIEW
from tests.fixtures.browser import Browser
from tests.fixtures.pipeline import World
from tests.fixtures.program import dashboards, finish, starting
from tests.fixtures.waiting import PATIENCE_SECONDS, wait_until

pytestmark = pytest.mark.long


class Dashboards:
    """Both servers over a world in which the recipe was run once."""

    def __init__(self, addresses: Sequence[str]) -> None:
        parts = [urlsplit(address) for address in addresses]
        self.prefect, self.mlflow = (f"{part.scheme}://{part.netloc}" for part in parts)

    def artifact(self, key: str) -> str:
        """Return the address of the newest artifact with this key."""
        found = post(f"{self.prefect}/api/artifacts/latest/filter", {"artifacts": {"key": {"any_": [key]}}})
        return f"{self.prefect}/artifacts/artifact/{found[0]['latest_id']}"


def post(url: str, content: Mapping[str, Any]) -> Any:
    request = urllib.request.Request(url, json.dumps(content).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=PATIENCE_SECONDS) as answer:
        return json.load(answer)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dashboards]:
    world = World(tmp_path_factory.mktemp("world"))
    with starting(world) as start:
        addresses = dashboards(start("ui", "--port", "0"))
        finish(start("run", str(world.recipe)))
        yield Dashboards(addresses)


def test_the_dashboards_show_the_run_and_the_champion_in_a_browser(browser: Browser, served: Dashboards) -> None:
    browser.show(f"{served.prefect}/runs", "merge-and-evaluate", "Completed")
    browser.show(f"{served.prefect}/artifacts", "tiny-leaderboard")
    browser.show(f"{served.mlflow}/#/models/tiny", "champion")


def test_mlflow_opens_in_the_view_that_has_runs_and_models(browser: Browser, served: Dashboards) -> None:
    browser.show(f"{served.mlflow}/#/experiments/1/runs{VIEW}", "tiny", "matching runs", "Model registry")


def test_each_dashboard_leads_to_the_other(browser: Browser, served: Dashboards) -> None:
    browser.show(served.artifact("tiny-release"), "version 1 of tiny")
    run = browser.link("scores, figures and files of this run")
    browser.show(browser.link("version 1 of tiny"), "Version 1", "champion", "The run in MLflow")
    assert browser.link("The run in MLflow") == run
    browser.show(run, "This run in Prefect", "Registered: tiny version 1", "recipe.yaml", "seconds/compare")
    assert "/models/tiny/versions/1" in browser.link("tiny version 1")
    browser.show(browser.link("This run in Prefect"), "merge-and-evaluate", "Completed")


@pytest.mark.parametrize(
    ("artifact", "wanted"),
    [
        ("overlap", "density"),
        ("scores", "words"),
        ("leaderboard", "on validation"),
        ("variants", "ram_plus-paper"),
        ("gates", "min_score"),
        ("release", "champion"),
    ],
)
def test_no_table_of_prefect_is_cut(browser: Browser, served: Dashboards, artifact: str, wanted: str) -> None:
    browser.show(served.artifact(f"tiny-{artifact}"), wanted)
    assert browser.cut_tables() == []


def test_what_a_variant_lacks_is_said_in_a_word(browser: Browser, served: Dashboards) -> None:
    browser.show(served.artifact("tiny-variants"), "ram_plus-paper", "none")
    assert browser.ask("document.querySelectorAll('table li').length") == 0, "a dash becomes a bullet"


def test_the_figures_of_leaderboard_and_trend_are_drawn(browser: Browser, served: Dashboards) -> None:
    drawn = "[...document.querySelectorAll('img')].some(image => image.naturalWidth > 500)"
    browser.show(served.artifact("tiny-leaderboard"), "Leaderboard")
    wait_until(lambda: browser.ask(drawn), "the figure in Prefect")
    browser.show(served.artifact("tiny-trend"), "challenger", "The same in MLflow")
    wait_until(lambda: browser.ask(drawn), "the trend in Prefect")
