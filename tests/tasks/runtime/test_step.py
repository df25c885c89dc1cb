"""Contract of a step's retries: what may recover is tried again with growing delays; what cannot is tried once."""

from pathlib import Path

import pytest
from prefect import flow

from rammerge.errors import InputError, RammergeError
from rammerge.store import Entry
from tasks.runtime.step import Result, retrying, step


def _read(entry: Entry) -> Result:
    return Result(path=entry.path, digest=entry.digest)


pytestmark = pytest.mark.usefixtures("prefect_api")


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAMMERGE_BACKOFF_SECONDS", "0.05")


@pytest.mark.parametrize(
    ("error", "failures", "attempts", "ends_well"),
    [
        (ConnectionError("the network is down"), 2, 3, True),
        (RammergeError("the server is busy"), 3, 4, True),
        (OSError("gone for good"), 9, 4, False),
        (InputError("no such model"), 1, 1, False),
    ],
)
def test_only_what_may_recover_is_tried_again(error: Exception, failures: int, attempts: int, ends_well: bool) -> None:
    tried: list[int] = []

    @step("flaky", version=1, run_name="flaky", result=_read, retries=3)
    def flaky(out: Path, salt: str) -> None:
        tried.append(len(tried))
        if len(tried) <= failures:
            raise error
        (out / "done").write_text(salt)

    @flow
    def run() -> None:
        flaky(str(error))

    state = run(return_state=True)
    assert state.is_completed() is ends_well
    assert len(tried) == attempts
    if not ends_well:
        assert str(state.result(raise_on_failure=False)) == str(error)


def test_delays_grow_and_are_jittered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAMMERGE_BACKOFF_SECONDS", "2")
    settings = retrying(3)
    delays = settings["retry_delay_seconds"](settings["retries"])
    assert delays == [2, 4, 8]
    assert settings["retry_jitter_factor"] > 0
