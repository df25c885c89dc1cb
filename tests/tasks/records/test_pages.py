"""Contract of links between the dashboards: they lead to the address of each dashboard, if it can be known.

They contain no secret.
"""

from pathlib import Path

import pytest

from tasks.records import pages

RUN = "01234567-89ab-cdef-0123-456789abcdef"


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RAMMERGE_HOME", str(tmp_path))
    return tmp_path


def test_before_the_dashboards_ever_ran_links_lead_to_where_they_will_be() -> None:
    assert pages.dashboards() == ("http://127.0.0.1:4200", "http://127.0.0.1:4201")


def test_links_lead_to_where_the_dashboards_were_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///runs.db")
    pages.remember(pages.Dashboards("http://127.0.0.1:5000", "http://127.0.0.1:5001"))
    assert pages.dashboards().prefect == "http://127.0.0.1:5000"
    assert pages.mlflow_page(pages.run_fragment("1", "abc")).startswith(
        "http://127.0.0.1:5001/#/experiments/1/runs/abc"
    )


def test_the_users_own_servers_are_linked_without_their_passwords(monkeypatch: pytest.MonkeyPatch) -> None:
    from prefect.settings import PREFECT_API_URL, PREFECT_UI_URL, temporary_settings

    with temporary_settings(
        {PREFECT_API_URL: "https://user:secret@prefect.example/api"}, restore_defaults={PREFECT_UI_URL}
    ):
        assert pages.flow_run_page(RUN) == f"https://prefect.example/runs/flow-run/{RUN}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://user:secret@mlflow.example:5000/base/")
    page = pages.mlflow_page(pages.version_fragment("tiny", 3))
    assert page.startswith("https://mlflow.example:5000/base/#/models/tiny/versions/3")


@pytest.mark.parametrize("damage", ["", "[]", "{}", '{"prefect": "x"}'])
def test_a_damaged_memory_is_as_good_as_none(own_home: Path, damage: str) -> None:
    (own_home / "dashboards.json").write_text(damage)
    assert pages.dashboards().prefect == "http://127.0.0.1:4200"
