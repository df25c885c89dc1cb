"""Contract: a recipe measures its merges against models that are never merged and never promoted.

They answer the same items, stand on the leaderboard as what they are, and what has been asked once is not asked again.
"""

import operator
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from rammerge.errors import InputError
from tests.evaluation.made import write_model
from tests.fixtures.answering import Answering, answering
from tests.fixtures.pipeline import World

pytestmark = pytest.mark.usefixtures("prefect_api")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    world = World(tmp_path_factory.mktemp("world"))
    write_model(world.root / "today", seed=7)
    return world


@pytest.fixture(autouse=True)
def environment(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Share one home among the tests of this module: each test starts where the test before it ended."""
    world.enter(monkeypatch)
    monkeypatch.setenv("TINY_KEY", "sk-hidden")


@pytest.fixture(scope="module")
def server() -> Iterator[Answering]:
    with answering() as there:
        there.models = [{"id": "tiny", "created": 1, "root": "weights-1"}]
        there.answer = lambda _: "abc"
        yield there


def written(world: World, server: Answering, **changes: Any) -> Path:
    """Write a recipe with a checkpoint and a served model to measure against."""
    api = {"url": server.url, "model": "tiny", "key": "TINY_KEY", "retries": 0}
    yardsticks = {"today": "today", "api": api | changes}
    gates = [{"rule": "better_than", "model": "api", "evidence": "point"}]
    evaluation = {"suites": ["./words"], "batch_size": "auto", "router": True}
    return world.write(
        merges=["average"], yardsticks=yardsticks, gates=gates, evaluation=evaluation, registry={"promote": False}
    )


def run(recipe: Path) -> tuple[Any, list[str]]:
    """Run the flow; return its outcome and the steps that ended."""
    from flows.merge_and_evaluate import merge_and_evaluate
    from tasks.runtime.progress import Event, listening

    ended: list[str] = []

    def note(event: Event) -> None:
        if event.state != "running":
            ended.append(event.step)

    with listening(note):
        return merge_and_evaluate(recipe, return_state=True).result(raise_on_failure=False), ended


def test_they_stand_on_the_leaderboard_and_only_variants_are_selected(world: World, server: Answering) -> None:
    from flows.run.planning import plan

    recipe = written(world, server)
    outcome, steps = run(recipe)
    board = outcome.leaderboard
    beside = {"api": "yardstick", "today": "yardstick", "router": "ensemble", "oracle": "bound"}
    assert {row.name: row.kind for row in board.rows[3:7]} == beside
    assert outcome.selected == "average"
    assert plan(recipe).steps == len(steps)
    answers = board.scores["api"]["test"]["words"]
    assert set(answers) == {float(sum(map(ord, "abc")) % 3 != 0)} and len(answers) == 10
    assert len(server.asked) == 16
    assert all(headers["Authorization"] == "Bearer sk-hidden" for _, headers, _ in server.asked)
    compared = {shown.comparison.theirs for shown in board.comparisons if shown.role == "yardstick"}
    assert compared == {"today", "api", "router"}
    text = f"{outcome}{unescape(outcome.report.read_text())}"
    assert f"api: tiny at {server.url}, whose dtype and chat template are the server's own." in text
    assert "today (yardstick)" in text and "sk-hidden" not in text
    assert "root=weights-1" in text
    best = max(plan(recipe).agents, key=lambda agent: board.row(agent).average["validation"].value)
    assert board.scores["router"] == board.scores[best], "one suite is one domain"
    assert "router: keeps all 2 agents in memory, 2 times that of one model, and asks " in text
    assert all(map(operator.ge, board.scores["oracle"]["test"]["words"], board.scores[best]["test"]["words"]))
    (refusal,) = outcome.decision.outcomes
    assert "api on average" in refusal.sentence


def test_what_was_asked_is_asked_again_only_if_the_server_or_the_recipe_says_that_it_changed(
    world: World, server: Answering
) -> None:
    from flows.run.planning import plan
    from flows.run.yardsticks import meet_servers

    def identity(**changes: Any) -> Any:
        return meet_servers(plan(written(world, server, **changes)))["api"].identity

    before = identity()
    server.asked.clear()
    server.models[0]["created"] = 2
    run(written(world, server, concurrency=3))
    assert server.asked == [] and identity(concurrency=3) == before
    assert identity(as_of="a later day") != before
    server.status = 503
    with pytest.raises(InputError, match="status 503 when it is asked for its models"):
        identity(as_of="a day without an answer")
    todo = plan(written(world, server))
    assert meet_servers(todo)["api"].away and identity() == before, "it has answered everything already"
    server.status = 200
    server.models[0]["root"] = "weights-2"
    assert identity() != before


def test_a_server_that_does_not_list_its_model_is_tried_before_any_work(world: World, server: Answering) -> None:
    from flows.run.planning import plan
    from flows.run.yardsticks import meet_servers

    todo = plan(written(world, server, model="other"))
    server.asked.clear()
    assert meet_servers(todo)["api"].said == {}
    assert len(server.asked) == 1
    server.faults = [404]
    with pytest.raises(InputError, match=r"recipe.yaml:\d+: yardsticks.api: .*'other' .*correct the address"):
        meet_servers(todo)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"url": "http://127.0.0.1:9/v1"}, "the server at http://127.0.0.1:9/v1 is not there (ConnectError"),
        ({"key": "UNSET_KEY", "model": "refused"}, "refuses the key (401); set UNSET_KEY"),
    ],
)
def test_a_server_that_cannot_be_asked_is_named_with_its_line(
    world: World, server: Answering, changes: dict[str, Any], words: str
) -> None:
    from flows.run.planning import plan
    from flows.run.yardsticks import meet_servers

    server.faults = [401] if "key" in changes else []
    with pytest.raises(InputError) as refused:
        meet_servers(plan(written(world, server, **changes)))
    assert str(refused.value).startswith(f"{world.recipe}:") and words in str(refused.value)


def test_a_backend_that_is_not_installed_is_named_with_its_line(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    from flows.run.planning import plan

    monkeypatch.setenv("PATH", str(world.root))
    todo = plan(world.write(evaluation={"suites": ["./words"], "backend": "vllm"}))
    with pytest.raises(InputError, match=r"recipe.yaml:\d+: evaluation.backend: vLLM is not installed here"):
        assert todo.conditions
