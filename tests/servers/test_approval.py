"""Contract: with `approval: required` nothing serves before a person says so, and the first answer counts.

A run by hand ends and leaves the question; a run of a deployment pauses, and goes on by its page or by a command.
"""

import json
import threading
from collections.abc import Callable, Iterator
from contextvars import copy_context
from pathlib import Path
from typing import Any

import pytest

from rammerge.errors import InputError
from tests.fixtures.hooks import Receiver, receiving
from tests.fixtures.pipeline import World
from tests.fixtures.waiting import wait_until

pytestmark = [pytest.mark.servers, pytest.mark.usefixtures("prefect_api")]


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("world"))


@pytest.fixture(autouse=True)
def environment(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.enter(monkeypatch)


def asking(world: World, receiver: Receiver, method: str, timeout: str = "1h") -> Path:
    # There is no hub, which is a warning and no more.
    registry = {"approval": "required", "approval_timeout": timeout, "push": "org/merged"}
    return world.write(merges=[method], registry=registry, notify=[{"url": receiver.url}])


def run(recipe: Path) -> Any:
    from flows.merge_and_evaluate import merge_and_evaluate

    return merge_and_evaluate(recipe, return_state=True)


@pytest.fixture
def paused(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path, Callable[[Any], None]], Any]:
    """Return a function that runs a recipe as a deployment does, calls a function once it is paused, and ends it."""
    from prefect import get_client
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterState, FlowRunFilterStateType
    from prefect.client.schemas.objects import StateType

    from flows.run import approval, promoting

    monkeypatch.setattr(promoting, "is_of_one_run", lambda: True)
    monkeypatch.setattr(approval, "_POLL_SECONDS", 0.05)
    is_paused = FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.PAUSED])))

    def go(recipe: Path, act: Callable[[Any], None]) -> Any:
        ended: list[Any] = []
        thread = threading.Thread(target=copy_context().run, args=(lambda: ended.append(run(recipe)),))
        thread.start()
        with get_client(sync_client=True) as client:

            def find() -> list[Any]:
                found = client.read_flow_runs(flow_run_filter=is_paused)
                return [each for each in found if each.state and "waits for approval" in (each.state.message or "")]

            wait_until(lambda: ended or find(), "the pause")
            assert not ended, ended[0].message
            act(find()[0])
        thread.join()
        return ended[0]

    return go


def told(receiver: Receiver) -> list[tuple[str, int]]:
    found = [json.loads(body) for _, body in receiver.posts]
    receiver.posts.clear()
    return [(each["event"], each["version"]) for each in found]


def champion() -> int | None:
    from tasks.records.registry import find_champion

    found = find_champion("tiny")
    return found.version if found else None


def test_a_run_by_hand_ends_and_a_command_answers(
    world: World, receiver: Receiver, capsys: pytest.CaptureFixture[str]
) -> None:
    from flows.cli.releasing import approve, releases

    state = run(asking(world, receiver, "average"))
    assert state.name == "AwaitingApproval" and "rammerge approve tiny --because TEXT" in state.message
    assert champion() is None and told(receiver) == [("waiting", 1)]
    releases("tiny")
    assert "version 1 waits for approval until" in capsys.readouterr().out
    approve(str(world.recipe), "looks good")
    assert champion() == 1 and told(receiver) == [("promoted", 1)]
    assert "warning: it is not on the hub: org/merged cannot be pushed to: " in capsys.readouterr().err
    with pytest.raises(InputError, match="no version of tiny waits for approval"):
        approve("tiny", "once more")


def test_a_paused_run_goes_on_by_its_page(world: World, receiver: Receiver, paused: Any) -> None:
    from prefect import get_client

    from tasks.records.history import read_history
    from tasks.records.registry import get_release

    def act(flow_run: Any) -> None:
        assert "report.html" in flow_run.state.message
        with get_client(sync_client=True) as client:
            keys = flow_run.state.state_details.run_input_keyset
            question = client.read_flow_run_input(flow_run.id, keys["description"])
            assert "report.html" in question and "**tiny version 2**" in question
            client.resume_flow_run(flow_run.id, run_input={"approve": True, "who": "Ann", "why": "read it"})

    state = paused(asking(world, receiver, "ram"), act)
    assert state.name == "Completed" and champion() == 2
    assert state.result().warnings[-1].startswith("tiny version 2 serves, and is not on the hub: ")
    assert told(receiver) == [("waiting", 2), ("promoted", 2)]
    last = read_history(get_release("tiny", 2).tags)[-1]
    assert (last.what, last.by, last.because, last.instead_of) == ("promoted", "Ann", "read it", 1)


def test_a_paused_run_ends_when_a_command_refuses_and_is_not_asked_again(
    world: World, receiver: Receiver, paused: Any
) -> None:
    from flows.cli.releasing import refuse

    recipe = asking(world, receiver, "task_arithmetic")
    state = paused(recipe, lambda flow_run: refuse(str(flow_run.id), "too slow"))
    assert state.name == "Refused" and "Tiny version 3 is not promoted: it was refused on" in state.message
    assert state.message.endswith("too slow.") and champion() == 2
    assert told(receiver) == [("waiting", 3), ("refused", 3)]
    again = run(recipe)
    assert "was refused on" in again.message and "`rammerge promote tiny 3` brings it back" in again.message
    assert champion() == 2 and told(receiver) == []


def test_no_answer_in_time_means_no(world: World, receiver: Receiver, paused: Any) -> None:
    recipe = asking(world, receiver, "ties", "4s")
    state = paused(recipe, lambda _: None)
    assert state.name == "Refused" and "is not promoted: it was timed out on" in state.message
    assert champion() == 2 and told(receiver) == [("waiting", 4), ("refused", 4)]


def test_a_run_that_fails_tells_why(world: World, receiver: Receiver) -> None:
    (world.agents["code"] / "model.safetensors").rename(world.root / "kept")
    assert run(asking(world, receiver, "average")).is_failed()
    (world.root / "kept").rename(world.agents["code"] / "model.safetensors")
    ((_, body),) = receiver.posts
    assert json.loads(body)["event"] == "failed" and "code" in json.loads(body)["sentence"]
