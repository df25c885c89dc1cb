"""Contract: a recipe that an earlier release ran is run by this one over its home. What is valid still is not redone.

Content that is registered already stays one version, and the champion is who it was.
"""

import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from tests.upgrade.make import HOMES, environment, place

pytestmark = pytest.mark.servers


@pytest.mark.parametrize("home", sorted(HOMES.iterdir()), ids=lambda file: file.name.partition(".")[0])
def test_the_same_recipe_again(home: Path) -> None:
    with place() as directory, tarfile.open(home) as tar:
        tar.extractall(directory, filter="data")

        def run(*words: str) -> str:
            command = [sys.executable, "-m", "rammerge", *words]
            done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
            assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
            return done.stdout + done.stderr

        versions = run("releases", "tiny")
        said = run("run", str(directory / "recipe.yaml"))
        # The merges have the bytes that they had, whether or not they were made again.
        for step in ("preflight", "smoke ram", "smoke ram_plus-paper"):
            assert f"{step:<41}cached" in said, said
        assert run("releases", "tiny") == versions, "the same content is one version"
        again = run("run", str(directory / "recipe.yaml"))
        assert " done " not in again, again
