"""Contract: a recipe that an earlier release ran is run by this one over its home. What is valid still is not redone.

Content that is registered already stays one version, and the champion is who it was.
"""

import re
import shutil
import tarfile
from pathlib import Path

import pytest

from tests.fixtures import forked
from tests.upgrade.make import HOMES, place

pytestmark = pytest.mark.servers


@pytest.mark.parametrize("home", sorted(HOMES.iterdir()), ids=lambda file: file.name.partition(".")[0])
def test_the_same_recipe_again(home: Path) -> None:
    with place() as directory, tarfile.open(home) as tar:
        tar.extractall(directory, filter="data")

        def run(*words: str, home: str = "home") -> str:
            return forked.finish({"RAMMERGE_HOME": str(directory / home), "HF_HUB_OFFLINE": "1"}, *words)

        versions = run("releases", "tiny")
        assert "ready to run" in run("check", str(directory / "recipe.yaml"))
        said = run("run", str(directory / "recipe.yaml"))
        # The merges have the bytes that they had, whether or not they were made again.
        for step in ("preflight", "smoke ram", "smoke ram_plus-paper"):
            assert f"{step:<41}cached" in said, said
        assert run("releases", "tiny") == versions, "the same content is one version"
        again = run("run", str(directory / "recipe.yaml"))
        assert " done " not in again, again
        run("backup", str(directory / "kept"))
        run("restore", str(directory / "kept"), home="elsewhere")
        shutil.rmtree(directory / "home")
        for pruned in (False, True):
            if pruned:
                run("prune", "--unused-days", "0", "--records", "0", home="elsewhere")
            assert _numbers(run("releases", "tiny", home="elsewhere")) == _numbers(versions)
            assert run("report", str(directory / "recipe.yaml"), home="elsewhere")


def _numbers(listed: str) -> list[tuple[str, str]]:
    """Return the versions and their aliases."""
    return re.findall(r"^ *(\d) +(\w+)", listed, re.MULTILINE)
