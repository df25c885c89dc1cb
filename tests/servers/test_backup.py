"""Contract of backup and restore, the whole way round: a restored home has the releases, and nothing to redo."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.fixtures.pipeline import World
from tests.servers.conftest import Site
from tests.servers.postgresql import PostgreSQL

pytestmark = pytest.mark.servers


def rammerge(home: Path, *words: str) -> tuple[str, str]:
    """Run a command on the embedded servers and databases of a home; return what it printed to stdout and stderr."""
    nothing = PostgreSQL(port=0, programs=Path())
    command = [sys.executable, "-m", "rammerge", *words]
    done = subprocess.run(command, env=Site(home, nothing).bare, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


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
    assert str(new) in rammerge(new, "restore", str(tmp_path / "kept"))[0]
    listed, _ = rammerge(new, "releases", "tiny")
    assert "champion" in listed
    for model in new.glob("mlflow/artifacts/**/artifacts/model/model"):
        rammerge(new, "verify", str(model))
    rammerge(new, "compare", "tiny:average", "tiny:ram_plus", "--out", str(again))
    assert again.read_text() == compared.read_text(), "the answers of both are found"
    _, steps = rammerge(new, "run", str(world.recipe))
    assert " done" not in steps and "failed" not in steps and "cached" in steps
    assert str(new) in rammerge(new, "report", str(world.recipe))[0]
    assert "version 1 is champion again" in rammerge(new, "rollback", "tiny")[0]
    assert "version 2 is champion now" in rammerge(new, "promote", "tiny", "2")[0]
    # What a changed gate reads of the restored store is in the restored store.
    higher = [{"rule": "min_score", "value": 0.01}, {"rule": "not_worse_than_champion", "margin": 1.0}]
    output, _ = rammerge(new, "run", str(world.write(merges=["average", "ram_plus"], gates=higher)))
    assert str(world.home) not in output
    rammerge(new, "prune", "--unused-days", "0", "--records", "0", "--versions", "0")
    _, steps = rammerge(new, "run", str(world.recipe))
    assert "failed" not in steps
