"""Contract of the Prefect server of one run: it does only what a run needs, unless the user asks for more.

And it is not ended before it knows how every step ended.
"""

from types import SimpleNamespace
from unittest.mock import MagicMock
from uuid import uuid4

import pytest
from prefect import settings
from prefect.client import orchestration
from prefect.states import Completed, Running

from flows.servers.api import wait_until_recorded
from flows.servers.local import of_one_run


def test_what_it_is_told_are_settings_of_prefects() -> None:
    assert [name for name in of_one_run() if not hasattr(settings, name)] == []


def test_what_the_user_has_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "PREFECT_SERVER_SERVICES_SCHEDULER_ENABLED"
    assert of_one_run()[name] == "false"
    monkeypatch.setenv(name, "true")
    assert name not in of_one_run()


def test_a_step_that_it_has_not_heard_of_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    ended, running = SimpleNamespace(state=Completed()), SimpleNamespace(state=Running())
    told = [[ended], [ended, running], [ended, ended]]
    client = MagicMock()
    client.__enter__.return_value.read_task_runs = lambda **_: told.pop(0)
    monkeypatch.setattr(orchestration, "get_client", lambda **_: client)
    assert wait_until_recorded(uuid4(), steps=2)
    assert told == []
