"""Contract of a step.

What may recover is tried again with growing delays, and what cannot is tried once. A result that another release cached
under a different class is never loaded. Parameters that do not count must exist.
"""

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from prefect import flow

from rammerge.errors import InputError, RammergeError
from tasks.runtime.result import Result
from tasks.runtime.retries import retrying
from tasks.runtime.step import Step, step

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

    @step("flaky", version=1, run_name="flaky", result=Result, retries=3)
    def flaky(out: Path, salt: str) -> None:
        tried.append(len(tried))
        if len(tried) <= failures:
            raise error
        (out / "done").write_text(salt)

    @flow
    def run() -> None:
        flaky.submit(str(error)).result()

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


def made_in(module: str, monkeypatch: pytest.MonkeyPatch, made: list[str]) -> Step[Result]:
    """Return a step whose result is a class of `module`, and which notes where it was made."""
    place = ModuleType(module)
    monkeypatch.setitem(sys.modules, module, place)
    monkeypatch.setattr(place, "Made", type("Made", (Result,), {"__module__": module}), raising=False)

    @step("moved", version=1, run_name="moved", result=place.Made)
    def moved(out: Path, salt: str) -> None:
        made.append(module)
        (out / "done").write_text(salt)

    return moved


def test_a_cached_result_that_names_a_module_that_is_gone_is_not_found(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    for module in ("room_before", "room_after"):
        moved = made_in(module, monkeypatch, made)

        @flow
        def run(moved: Any) -> Any:
            return moved.submit("salt").result()

        assert isinstance(run(moved), Result)
        monkeypatch.delitem(sys.modules, module)
    assert made == ["room_before"], "the store still has what was made"


def test_what_is_ignored_must_be_a_parameter() -> None:
    with pytest.raises(TypeError, match="step 'odd' ignores 'lable', which is not a parameter"):

        @step("odd", version=1, run_name="odd", result=Result, ignore=["lable"])
        def odd(out: Path, label: str) -> None: ...


def test_a_step_finds_what_was_done_before() -> None:
    @step("known", version=1, run_name="known {label}", result=Result, ignore=["label"])
    def known(out: Path, label: str, salt: str = "s") -> None:
        (out / "done").write_text(f"{label} {salt}")

    @flow
    def run() -> Result:
        return known.submit("a name", salt="s").result()

    assert known.find(salt="s") is None
    made = run()
    assert known.find(salt="s") == known.find() == made
    assert known.find(salt="other") is None


def test_homes_that_share_a_server_do_not_share_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    @step("homely", version=1, run_name="homely", result=Result)
    def homely(out: Path, salt: str) -> None:
        (out / "done").write_text(salt)

    @flow
    def run() -> Path:
        return homely.submit("the same").result().path

    for home in (tmp_path / "one", tmp_path / "other"):
        monkeypatch.setenv("RAMMERGE_HOME", str(home))
        assert run().is_relative_to(home)
