"""Contract: with `store.pack` the store keeps the variants that were not selected as patches, and agents stay patches.

Nothing else changes: a later run finds everything, whatever needs a model's files gets the same bytes, and what is
registered is whole.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

import rammerge
from rammerge.checkpoints.digest import sha256_file
from rammerge.checkpoints.patched.place import is_patch
from rammerge.store import entries
from tests.evaluation.made import write_suite
from tests.fixtures.pipeline import World
from tests.flows.test_flow import run

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("prefect_api")]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    world = World(tmp_path_factory.mktemp("world"))
    rammerge.pack(world.base, world.agents["tool"], world.root / "tool.patch")
    write_suite(world.root / "more", sizes=(6, 10))
    return world


@pytest.fixture(autouse=True)
def environment(world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Share one home among the tests of this module: each test starts where the test before it ended."""
    world.enter(monkeypatch)
    yield
    entries.hold.cache_clear()


def write(world: World, *suites: str, pack: bool = True) -> Path:
    """Write the recipe with a float32 base, of which one agent is a patch."""
    return world.write(
        agents={"tool": "tool.patch", "code": "code"},
        merges=["average", "ram"],
        evaluation={"suites": list(suites) or ["./words"], "batch_size": 8},
        store={"pack": pack},
    )


def models() -> dict[str, Path]:
    """Return the directories of the variants in the store by method."""
    found = {path: rammerge.Manifest.read(path) for path in entries.root().glob("merge/*/model")}
    return {manifest.settings.method: path for path, manifest in found.items()}


def hashes(model: Path) -> dict[str, str]:
    return {file.name: sha256_file(file) for file in model.iterdir()}


def size(model: Path) -> int:
    return sum(file.stat().st_size for file in model.iterdir())


def test_losers_become_patches_and_what_is_registered_stays_whole(world: World) -> None:
    plain, _ = run(write(world, pack=False))
    before = {method: hashes(model) for method, model in models().items()}
    outcome, steps = run(write(world))
    loser = models()[({"average", "ram"} - {outcome.selected}).pop()]
    assert (outcome.selected, outcome.registered) == (plain.selected, plain.registered)
    assert "pack variants" in steps["done"] and "merge average" not in steps["done"]
    assert is_patch(loser) and not is_patch(outcome.model)
    assert rammerge.verify(outcome.model)
    unpacked = rammerge.unpack(world.base, loser, world.root / "unpacked")
    assert hashes(unpacked) == before[rammerge.Manifest.read(loser).settings.method]
    assert rammerge.verify(unpacked)
    assert not list(entries.root().glob("unpacked/[!.]*")), "what the agent was unpacked into is gone"
    assert sum(file.stat().st_size for file in loser.iterdir()) < sum(
        file.stat().st_size for file in unpacked.iterdir()
    )


def test_a_later_run_finds_everything_and_unpacks_nothing(world: World) -> None:
    outcome, steps = run(write(world))
    assert steps.keys() == {"cached"}
    assert sum(map(is_patch, models().values())) == 1
    assert (outcome.model / "model.safetensors").is_file()


def test_a_new_suite_is_asked_of_all_models_and_leaves_them_as_they_were(world: World) -> None:
    whole, _ = run(write(world, "./words", "./more", pack=False))
    assert not any(map(is_patch, models().values()))
    outcome, steps = run(write(world, "./words", "./more"))
    assert "pack variants" in steps["done"] and outcome.selected == whole.selected
    assert sum(map(is_patch, models().values())) == 1


def test_a_patch_whose_base_has_gone_is_merged_again(world: World) -> None:
    moved = world.base.rename(world.root / "elsewhere")
    try:
        recipe = write(world)
        recipe.write_text(recipe.read_text().replace("base: base", "base: elsewhere"))
        _, steps = run(recipe)
    finally:
        moved.rename(world.base)
    assert {"merge average", "merge ram"} <= {*steps["done"], *steps["cached"]}
    assert sum(map(is_patch, models().values())) <= 2
