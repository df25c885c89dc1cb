"""Contract: room is asked for everything that the merges will hold at one time, and before any of them starts.

So are the devices that a recipe names.
"""

import re
from pathlib import Path
from typing import Any

import pytest

from flows.run import checking, room
from flows.run.planning import plan
from rammerge.checkpoints.checkpoint import open_checkpoint
from rammerge.errors import InputError
from tasks.steps.sources import Model, digests
from tests.fixtures.pipeline import World


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    world = World(tmp_path / "world")
    monkeypatch.setenv("RAMMERGE_HOME", str(world.home))
    return world


@pytest.mark.parametrize("method", ["iso_c", "tsv_m", "wudi", {"method": "ram", "then": ["svc"]}])
def test_whole_matrices_need_room_for_their_updates(method: Any, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(room, "require_space", lambda _, needed, **__: asked.append(needed))

    def needed(*merges: Any) -> int:
        todo = plan(world.write(merges=list(merges), gates=[]))
        origins = {"base": todo.base, **todo.agents}
        sources = {name: model(Path(origin.source)) for name, origin in origins.items()}
        assert list(room.require_room(todo, sources)) == list(todo.variants)
        return asked.pop()

    elements = sum(info.numel for info in open_checkpoint(world.root / "base").tensors.values())
    assert needed("average", "ram") == 2 * needed("average")
    assert needed("average", method) == needed("average", "ram") + 4 * elements


@pytest.mark.parametrize(("key", "place"), [("merge", "merge"), ("evaluate", "evaluate[0]"), ("device", "device")])
def test_a_device_that_the_machine_lacks_is_found_before_anything_runs(world: World, key: str, place: str) -> None:
    recipe = world.write(compute={key: "cuda:99"})
    with pytest.raises(InputError, match=rf":\d+: compute.{re.escape(place)}: device 'cuda:99' cannot be used"):
        checking.check(plan(recipe))


def model(directory: Path) -> Model:
    digest, content = digests(open_checkpoint(directory))
    return Model(path=directory, digest=digest, content=content, source=directory.name)
