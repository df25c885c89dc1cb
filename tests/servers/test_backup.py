"""Contract of backup and restore, the whole way round: a restored home has the releases, and nothing to redo."""

from pathlib import Path

import pytest

from tests.fixtures import forked
from tests.fixtures.pipeline import World

pytestmark = pytest.mark.servers


def rammerge(home: Path, *words: str) -> str:
    """Run a command on the embedded servers and databases of a home; return what it printed."""
    return forked.finish({"RAMMERGE_HOME": str(home)}, *words)


def test_a_restored_home_has_the_releases_and_nothing_to_redo(tmp_path: Path) -> None:
    world = World(tmp_path)
    # The last one compares with the champion that the one before it has made.
    for merges in (["ram"], ["average", "ram_plus"], ["average", "ram_plus"]):
        world.write(merges=merges, store={"pack": True})
        rammerge(world.home, "run", str(world.recipe))
    compared, again = tmp_path / "compared.html", tmp_path / "again.html"
    rammerge(world.home, "compare", "tiny:average", "tiny:ram_plus", "--out", str(compared))
    rammerge(world.home, "backup", str(tmp_path / "kept"))
    world.home.rename(tmp_path / "lost")

    new = tmp_path / "new"
    assert str(new) in rammerge(new, "restore", str(tmp_path / "kept"))
    listed = rammerge(new, "releases", "tiny")
    assert "champion" in listed
    for model in new.glob("mlflow/artifacts/**/artifacts/model/model"):
        rammerge(new, "verify", str(model))
    rammerge(new, "compare", "tiny:average", "tiny:ram_plus", "--out", str(again))
    assert again.read_text() == compared.read_text(), "the answers of both are found"
    steps = rammerge(new, "run", str(world.recipe))
    assert " done" not in steps and "failed" not in steps and "cached" in steps
    assert str(new) in rammerge(new, "report", str(world.recipe))
    assert "version 1 is champion again" in rammerge(new, "rollback", "tiny")
    assert "version 2 is champion now" in rammerge(new, "promote", "tiny", "2")
    # What a changed gate reads of the restored store is in the restored store.
    higher = [{"rule": "min_score", "value": 0.01}, {"rule": "not_worse_than_champion", "margin": 1.0}]
    output = rammerge(new, "run", str(world.write(merges=["average", "ram_plus"], gates=higher)))
    assert str(world.home) not in output
    rammerge(new, "prune", "--unused-days", "0", "--records", "0", "--versions", "0")
    steps = rammerge(new, "run", str(world.recipe))
    assert "failed" not in steps
