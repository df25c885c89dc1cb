"""Contract of steps on other workers: they get the arguments as they are, and what they make is found in the store.

What the store has is not asked for, and a worker that leaves nothing there fails the step.
"""

from pathlib import Path

import pytest
from prefect import flow

from flows.run.sending import read, written
from rammerge import store
from rammerge.errors import RammergeError
from rammerge.recipe import Compute, Output
from tasks.runtime.elsewhere import Asked, elsewhere
from tasks.runtime.result import Result
from tasks.runtime.step import step
from tasks.steps.conditions import Conditions, SuiteRef
from tasks.steps.methods import MethodRef
from tasks.steps.sources import Fetched


def model(path: Path) -> Fetched:
    return Fetched(path=path, digest="d", content="c", source="org/x", settled=True, state=None, notes=("a note",))


def test_arguments_travel_as_json_and_arrive_as_what_they_were(tmp_path: Path) -> None:
    given = {
        "base": model(tmp_path),
        "agents": {"b": model(tmp_path / "b"), "a": model(tmp_path / "a")},
        "groups": {"b": ["b.1", "b.2"]},
        "method": MethodRef(name="ram", preset=None, params={"r": 1e-5}, directory=tmp_path, trusted=("own",)),
        "output": Output(),
        "compute": Compute(device="cuda:1"),
        "suites": [SuiteRef(name="words", path=tmp_path / "words", digest="e")],
        "conditions": Conditions(
            dtype="float32",
            batch_size=None,
            limit=None,
            device="cuda",
            batches={"words": 8},
            lm_eval="1",
            transformers="2",
            torch="3",
            devices=("cuda:1", "cuda:2"),
        ),
        "together": None,
        "look": 2,
    }
    arrived = read(written(given))
    assert arrived == given and list(arrived["agents"]) == ["b", "a"]
    assert type(arrived["base"]) is Fetched


@pytest.mark.usefixtures("prefect_api")
def test_a_step_is_asked_for_once_and_its_output_is_found() -> None:
    asked: list[Asked] = []
    made: list[str] = []

    @step("sent", version=1, run_name="sent {label}", result=Result, ignore=["label"], work="merge")
    def sent(out: Path, label: str, salt: str = "s") -> None:
        made.append(label)
        (out / "done").write_text(salt)

    def ask(wanted: Asked) -> None:
        asked.append(wanted)
        if wanted.arguments["salt"] != "lost":
            store.materialise("sent", sent.key(**wanted.arguments), lambda out: sent._build(out, **wanted.arguments))

    @flow
    def run(label: str, salt: str) -> Result:
        with elsewhere({"merge": ask}):
            return sent.submit(label, salt).result()

    first = run("one", "s")
    assert run("two", "s") == first
    assert [(each.kind, each.name, dict(each.arguments)) for each in asked] == [
        ("sent", "sent one", {"label": "one", "salt": "s"})
    ]
    assert made == ["one"]
    with pytest.raises(RammergeError, match="a worker ran the step 'sent three', and its output is not in"):
        run("three", "lost")


@pytest.mark.usefixtures("prefect_api")
def test_steps_of_other_work_run_here() -> None:
    @step("kept", version=1, run_name="kept", result=Result, work="evaluate")
    def kept(out: Path, salt: str) -> None:
        (out / "done").write_text(salt)

    @flow
    def run() -> Result:
        with elsewhere({"merge": lambda asked: pytest.fail(f"asked for {asked.name}")}):
            return kept.submit("s").result()

    assert (run().path / "done").read_text() == "s"
