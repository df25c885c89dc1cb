"""Contract: licences that a recipe refuses are found before any work, and the error names models and key."""

from pathlib import Path

import pytest

from flows.run.checking import check
from flows.run.licences import require_licences
from flows.run.planning import plan
from rammerge.errors import InputError
from tests.fixtures.pipeline import World


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    world = World(tmp_path / "world")
    monkeypatch.setenv("RAMMERGE_HOME", str(world.home))
    (world.root / "tool" / "README.md").write_text("---\nlicense: cc-by-nd-4.0\n---\n")
    return world


def test_check_refuses_what_a_recipe_refuses(world: World) -> None:
    todo = plan(world.write(registry={"licences": "refuse"}))
    with pytest.raises(InputError, match=r":\d+: registry.licences: .*tool \(cc-by-nd-4.0\) does not allow"):
        check(todo)


def test_without_it_they_are_warnings_and_nothing_else_differs(world: World) -> None:
    warns, refuses = plan(world.write()).recipe, plan(world.write(registry={"licences": "refuse"})).recipe
    models = {"tool": world.root / "tool"}
    require_licences(plan(world.write()), models)
    assert warns.digest == refuses.digest
    assert warns.content == refuses.content
