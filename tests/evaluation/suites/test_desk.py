"""Contract of `desk`: who opens, takes and unlocks finds what is wanted in every desk, and nothing less does.

The player knows of a desk what it is told, and nothing of how it was made.
"""

import re
from collections.abc import Iterator
from typing import Any

import pytest

from evaluation.suites import Suite, load_suite
from evaluation.suites.environment import Environment


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Suite]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAMMERGE_HOME", str(tmp_path_factory.mktemp("home")))
        yield load_suite("desk")


def searching(prompt: str) -> Any:
    """Open every drawer, take keys and what is wanted, and unlock what a key is for; one call an answer."""
    drawers, wanted = read(prompt)
    locked: dict[str, str] = {}
    held: list[str] = []
    while drawers:
        drawer = drawers.pop(0)
        told = yield f"[open(drawer='{drawer}')]"
        if lock := re.search(r"the number (\d+)", told):
            locked[drawer] = f"key {lock[1]}"
        for thing in re.findall(r"[\w ]+", told.partition(": ")[2]):
            if thing.strip() == wanted or thing.strip().startswith("key"):
                held.append(thing.strip())
                yield f"[take(thing='{thing.strip()}')]"
        for drawer in [drawer for drawer, key in locked.items() if key in held]:
            yield f"[unlock(drawer='{drawer}', key='{locked.pop(drawer)}')]"
            drawers.append(drawer)
    yield f"[give(thing='{wanted}')]"


def hasty(prompt: str) -> Any:
    """Give what is wanted, whatever is told."""
    while True:
        yield f"[give(thing='{read(prompt)[1]}')]"


def mistaken(prompt: str) -> Any:
    """Give the first thing that lies anywhere."""
    for drawer in read(prompt)[0]:
        told = yield f"[open(drawer='{drawer}')]"
        thing = told.partition(": ")[2].partition(",")[0].strip(".")
        yield f"[take(thing='{thing}'), give(thing='{thing}')]"


def read(prompt: str) -> tuple[list[str], str]:
    """Return the drawers, and what is wanted."""
    drawers = re.findall(r"\w+", prompt.partition("drawers: ")[2].partition(".")[0])
    return drawers, prompt.partition("asks you for the ")[2].partition(".")[0]


def score(environment: Environment, item: dict[str, Any], player: Any, turns: int) -> float:
    environment.reset(item)
    acting = player(item["prompt"])
    answer = next(acting)
    for _ in range(turns):
        reply = environment.step(answer)
        if reply.score is not None:
            return reply.score
        answer = acting.send(reply.text)
    return 0.0


@pytest.mark.parametrize(("player", "least", "most"), [(searching, 1.0, 1.0), (hasty, 0.0, 0.0), (mistaken, 0.0, 0.4)])
def test_searching_always_finds_it_and_nothing_less(suite: Suite, player: Any, least: float, most: float) -> None:
    assert suite.environment is not None
    make = suite.environment.load()
    for task, count in (("desk_validation", 80), ("desk_test", 160)):
        scores = [score(make(), item, player, suite.environment.turns) for item in suite.task_files[task].items()]
        assert len(scores) == count
        assert least <= sum(scores) / count <= most


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ("I open the red drawer.", "That is no call. Answer with one, such as [open(drawer='red')]."),
        ("[]", "That is no call. Answer with one, such as [open(drawer='red')]."),
        ("[open(drawer='pink')]", "There is no pink drawer."),
        ("[open('red')]", "The arguments of open are not right."),
        ("[shut(drawer='red')]", "There is no function shut."),
        ("[take(thing='ring')]", "In no open drawer: ring."),
        ("[open(drawer='blue')]", "The blue drawer is locked. On its lock is the number 12."),
        ("[unlock(drawer='blue', key='key 12')]", "You do not hold: key 12."),
        ("[give(thing='ring')]", "You do not hold: ring."),
        ("[give(thing=['ring'])]", "You do not hold: ['ring']."),
        (
            "[open(drawer='red'), take(thing='key 9'), unlock(drawer='blue', key='key 9')]",
            "In the red drawer: key 9.\nYou hold: key 9.\nThe key 9 does not fit.",
        ),
    ],
)
def test_every_answer_is_told_what_came_of_it(suite: Suite, answer: str, told: str) -> None:
    assert suite.environment is not None
    desk = suite.environment.load()()
    desk.reset({"wanted": "ring", "things": {"red": ["key 9"], "blue": ["ring"]}, "locks": {"blue": "12"}})
    reply = desk.step(answer)
    assert (reply.text, reply.score) == (told, None)
