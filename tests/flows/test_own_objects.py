"""Contract: a recipe that trusts their modules uses gates and suites of the user's own like rammerge's.

The examples are what is used here. A gate whose code changes decides again.
"""

import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from flows.run.code import foreign_code
from flows.run.planning import plan
from rammerge.errors import InputError
from tests.fixtures.pipeline import World

pytestmark = pytest.mark.usefixtures("prefect_api")

EXAMPLES = Path(__file__).parents[2] / "examples" / "python"
GATE = "own_gate:KeepsSpecialists"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    world = World(tmp_path_factory.mktemp("world"))
    for name in ("own_gate.py", "own_method.py", "own_suite.py"):
        shutil.copy(EXAMPLES / name, world.root / name)
    shutil.copytree(EXAMPLES / "sums", world.root / "sums")
    return world


@pytest.fixture(autouse=True)
def environment(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.enter(monkeypatch)


def run(recipe: Path) -> Any:
    from flows.merge_and_evaluate import merge_and_evaluate

    return merge_and_evaluate(recipe, return_state=True).result()


def test_an_own_gate_decides_and_its_code_counts(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = world.write(merges=["ram"], trust=["own_gate"], gates=[{"rule": GATE, "share": 0.0}])
    passed = run(recipe)
    assert passed.passed
    assert "keeps 0% of the best agent on every suite" in str(passed.decision)
    code = world.root / "own_gate.py"
    code.write_text(code.read_text().replace("shares[worst] >= self.share", "shares[worst] < self.share"))
    monkeypatch.delitem(sys.modules, "own_gate")  # as a new process would
    refused = run(recipe)
    assert not refused.passed
    assert "does not keep 0% of the best agent" in refused.refusals[0]


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"gates": [{"rule": GATE}]}, "gates[0]"),
        ({"evaluation": {"suites": ["own_suite:SUMS"]}, "gates": []}, "evaluation.suites[0]"),
    ],
)
def test_code_that_is_not_trusted_does_not_run(world: World, changes: dict[str, Any], place: str) -> None:
    with pytest.raises(InputError, match="which is not trusted") as error:
        plan(world.write(**changes))
    assert place in str(error.value)


def test_an_own_suite_is_opened(world: World) -> None:
    recipe = world.write(trust=["own_suite"], evaluation={"suites": ["own_suite:SUMS"]}, gates=[])
    (suite,) = plan(recipe).suites
    assert (suite.name, suite.path) == ("sums", world.root / "sums")


def test_what_is_no_gate_or_suite_is_refused(world: World) -> None:
    with pytest.raises(InputError, match=r"is not a subclass of evaluation\.judging\.gates\.Gate"):
        plan(world.write(trust=["own_suite"], gates=[{"rule": "own_suite:SUMS"}]))
    with pytest.raises(InputError, match=r"must be the path of a directory with a suite\.yaml"):
        plan(world.write(trust=["own_gate"], gates=[], evaluation={"suites": [GATE]}))


def test_whose_code_a_recipe_runs_is_said(world: World) -> None:
    assert list(foreign_code(plan(world.write(evaluation={"suites": ["zoo_code"]})))) == []
    recipe = world.write(
        merges=["own_method:LARGEST"],
        trust=["own_gate", "own_method"],
        gates=[{"rule": GATE, "share": 0.0}],
        evaluation={"suites": ["./words", "zoo_code"]},
    )
    assert list(foreign_code(plan(recipe))) == [
        f"runs code from the suite words: scoring.py in {world.root / 'words'}",
        f"runs code from the trusted module own_method: {world.root / 'own_method.py'}",
        f"runs code from the trusted module own_gate: {world.root / 'own_gate.py'}",
    ]


@pytest.mark.parametrize("address", ["https://host/suite", "git+https://host/suites@main", "git@host:org/suite"])
def test_code_from_an_address_is_refused(world: World, address: str) -> None:
    with pytest.raises(InputError, match=r"evaluation\.suites\[0\].* is an address, and a suite is code.*a commit"):
        plan(world.write(evaluation={"suites": [address]}, gates=[]))
    with pytest.raises(InputError, match=r"trust.*is not the name of a module.*a version that you have read"):
        plan(world.write(trust=[address]))
