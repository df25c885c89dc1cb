"""Contract of the dashboards, as a browser of desktop width shows them: whoever looks finds the run and the champion.

No table is cut, and what is shown in one dashboard is not missing in the other.
"""

import json
import urllib.request
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.fixtures.browser import Browser
from tests.fixtures.pipeline import World
from tests.fixtures.program import dashboards, finish, starting
from tests.fixtures.waiting import PATIENCE_SECONDS, wait_until


class Dashboards:
    """Both servers over a world in which the recipe was run once."""

    def __init__(self, prefect: str, mlflow: str) -> None:
        self.prefect, self.mlflow = prefect, mlflow

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
        finish(start("run", str(world.recipe)))
        addresses = [urlsplit(address) for address in dashboards(start("ui", "--port", "0"))]
        yield Dashboards(*(f"{address.scheme}://{address.netloc}" for address in addresses))


def test_the_dashboards_show_the_run_and_the_champion_in_a_browser(browser: Browser, served: Dashboards) -> None:
    browser.show(f"{served.prefect}/runs", "merge-and-evaluate", "Completed")
    browser.show(f"{served.prefect}/artifacts", "tiny-leaderboard")
    browser.show(f"{served.mlflow}/#/models/tiny", "champion")


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


def test_the_leaderboards_figure_is_in_both(browser: Browser, served: Dashboards) -> None:
    drawn = "[...document.querySelectorAll('img')].some(image => image.naturalWidth > 500)"
    browser.show(served.artifact("tiny-leaderboard"), "Leaderboard")
    wait_until(lambda: browser.ask(drawn), "the figure in Prefect")
