"""Contract of turns: a large model runs alone, and a step that waits for its turn does not seem to run.

When a run fails, the steps that have not begun are skipped without a word.
"""

import threading
from pathlib import Path
from typing import Any, cast
from uuid import UUID

import pytest
from prefect import flow, get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.objects import TaskRun
from prefect.futures import PrefectConcurrentFuture, PrefectFuture
from prefect.runtime import flow_run
from prefect.task_runners import TaskRunner

from tasks.runtime.progress import listening
from tasks.runtime.result import Result
from tasks.runtime.runner import Workers, workers
from tasks.runtime.step import step
from tasks.runtime.turns import Claim, Turn, room
from tests.fixtures.waiting import wait_until

pytestmark = pytest.mark.usefixtures("prefect_api")


ALONE = Claim(alone=True)


def _alone(**_: object) -> Claim:
    return ALONE


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Turn]:
    """Return the turns that were asked for."""
    turns: list[Turn] = []
    begin = Turn.begin

    def note(turn: Turn, claim: Claim, timeout: float | None = None) -> None:
        turns.append(turn)
        begin(turn, claim, timeout)

    monkeypatch.setattr(Turn, "begin", note)
    return turns


def recorded(run: str) -> list[TaskRun]:
    """Return the steps of a flow run in the order in which they started, once Prefect has their end."""

    def steps() -> list[TaskRun]:
        with get_client(sync_client=True) as client:
            return client.read_task_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[UUID(run)])))

    wait_until(lambda: (found := steps()) and all(each.end_time for each in found), "Prefect to record the steps")
    return sorted(steps(), key=lambda each: str(each.start_time))


def test_a_step_that_waits_for_its_turn_has_not_started(asked: list[Turn]) -> None:
    started: list[str] = []
    running: list[int] = []

    @step("model", version=1, run_name="model {name}", result=Result, runs_a_model=_alone)
    def model(out: Path, name: str) -> None:
        with room(ALONE):
            wait_until(lambda: len(asked) == 2, "the other step to ask for its turn")
            running.append(len(started))
            (out / "name").write_text(name)

    @flow(task_runner=workers())
    def run() -> str:
        for future in [model.submit(name) for name in ("first", "second")]:
            future.result()
        return str(flow_run.id)

    with listening(lambda event: started.append(event.step) if event.state == "running" else None):
        first, second = recorded(run())
    assert started == [first.name, second.name]
    assert running == [1, 2], "the second started before the first ended"
    assert first.end_time is not None and second.start_time is not None
    assert first.end_time <= second.start_time
    assert not any(turn.held for turn in asked)


def test_what_is_made_already_waits_for_no_turn(asked: list[Turn]) -> None:
    @step("made", version=1, run_name="made", result=Result, runs_a_model=_alone)
    def made(out: Path) -> None:
        (out / "done").write_text("done")

    @flow(task_runner=workers())
    def run() -> None:
        made.submit().result()

    run()
    assert len(asked) == 1
    with room(ALONE):
        run()
    assert len(asked) == 1


def test_a_step_that_fails_gives_its_turn_back(asked: list[Turn]) -> None:
    @step("failing", version=1, run_name="failing", result=Result, runs_a_model=_alone)
    def failing(_: Path) -> None:
        with room(ALONE):
            raise ValueError("no")

    @flow(task_runner=workers())
    def run() -> None:
        failing.submit().result()

    assert run(return_state=True).is_failed()
    assert asked and not asked[0].held


def test_a_thread_that_was_given_no_turn_waits_for_the_slot() -> None:
    order: list[str] = []

    def run_a_model() -> None:
        with room(ALONE):
            order.append("the other thread")

    turn = Turn()
    turn.begin(ALONE)
    other = threading.Thread(target=run_a_model)
    with room(ALONE):
        other.start()
        order.append("the thread whose turn it is")
    turn.end()
    other.join()
    assert order == ["the thread whose turn it is", "the other thread"]


def test_what_a_failed_run_gives_up_is_skipped_silently(asked: list[Turn], caplog: pytest.LogCaptureFixture) -> None:
    """One step has no thread yet when the run fails, another has one and waits for its turn."""
    ended: dict[str, str] = {}
    futures: dict[str, PrefectConcurrentFuture[Result]] = {}

    @step("given-up", version=1, run_name="{name}", result=Result, runs_a_model=_alone)
    def model(out: Path, name: str) -> None:
        with room(ALONE):
            wait_until(
                lambda: "queued" in futures and futures["queued"].wrapped_future.cancelled(), "the end of the run"
            )
            (out / "name").write_text(name)

    @flow(task_runner=cast(TaskRunner[PrefectFuture[Any]], Workers(max_workers=2)))
    def run() -> None:
        for name in ("running", "waiting", "queued"):
            futures[name] = cast(PrefectConcurrentFuture[Result], model.submit(name))
            wait_until(lambda: len(asked) >= min(len(futures), 2), "the step to ask for its turn")
        raise ValueError("no")

    with listening(lambda event: ended.update({event.step: event.state})):
        assert run(return_state=True).is_failed()
    assert ended == {"running": "done", "waiting": "skipped", "queued": "skipped"}
    assert not [record for record in caplog.records if record.name == "concurrent.futures"]
