"""Contract of the Prefect server of one run: it does only what a run needs, unless the user asks for more."""

import pytest
from prefect import settings

from flows.servers.local import of_one_run


def test_what_it_is_told_are_settings_of_prefects() -> None:
    assert [name for name in of_one_run() if not hasattr(settings, name)] == []


def test_what_the_user_has_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "PREFECT_SERVER_SERVICES_SCHEDULER_ENABLED"
    assert of_one_run()[name] == "false"
    monkeypatch.setenv(name, "true")
    assert name not in of_one_run()
