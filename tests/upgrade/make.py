"""Make a home as a commit of this repository leaves it, for the tests of this directory.

    python -m tests.upgrade.make COMMIT

It writes tests/upgrade/homes/COMMIT.tar.xz: a tiny base and its agents, the home after two runs of their recipe, with
two registered versions, an agent as a patch, and a merged model. A home holds absolute paths, in MLflow's database and
elsewhere, so it is made, and later unpacked, in the one place `PLACE`.
"""

import fcntl
import os
import shutil
import sqlite3
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

PLACE = Path("/tmp/rammerge-upgrade")
HOMES = Path(__file__).with_name("homes")

# What commands use only once, or make again in a moment.
_LEFT_OUT = ("home/kernels", "home/logs", "home/prefect/memo_store.toml")
_MAKE = "from pathlib import Path; from tests.fixtures.pipeline import World; World(Path({place!r}))"
_RECIPE = """\
name: tiny
base: base
agents: {{tool: tool, code: code}}
merges: [{merges}]
evaluation: {{suites: [./words], batch_size: 8}}
gates: [{{rule: min_score, value: 0.0}}, {{rule: not_worse_than_champion, margin: 1.0}}]
"""


@contextmanager
def place() -> Iterator[Path]:
    """While the context lasts, `PLACE` is an empty directory of the caller's alone."""
    with PLACE.with_suffix(".lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        shutil.rmtree(PLACE, ignore_errors=True)
        PLACE.mkdir()
        try:
            yield PLACE
        finally:
            shutil.rmtree(PLACE)


def environment() -> dict[str, str]:
    """Return the variables with which everything stays in `PLACE`."""
    bare = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "MLFLOW_"))}
    return {**bare, "RAMMERGE_HOME": str(PLACE / "home"), "HF_HUB_OFFLINE": "1"}


def make(commit: str) -> Path:
    """Make the home as `commit` leaves it, and return the file that it is packed in."""
    with place(), tempfile.TemporaryDirectory() as scratch:
        checkout = Path(scratch) / "checkout"
        subprocess.run(["git", "worktree", "add", "--detach", "--force", str(checkout), commit], check=True)
        try:
            _fill(checkout)
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", str(checkout)], check=True)
        for name in _LEFT_OUT:
            shutil.rmtree(PLACE / name, ignore_errors=True)
        for database in PLACE.rglob("*.db"):
            with closing(sqlite3.connect(database)) as connection:
                connection.execute("VACUUM")
        HOMES.mkdir(exist_ok=True)
        packed = HOMES / f"{commit}.tar.xz"
        with tarfile.open(packed, "w:xz", preset=9) as tar:
            tar.add(PLACE, arcname=".")
        return packed


def _fill(checkout: Path) -> None:
    """Do what a user of the code in `checkout` does."""

    def python(*words: str) -> None:
        subprocess.run(
            [sys.executable, *words], cwd=checkout, env=environment() | {"PYTHONPATH": str(checkout)}, check=True
        )

    models = ["--base", str(PLACE / "base")]
    recipe = PLACE / "recipe.yaml"
    python("-c", _MAKE.format(place=str(PLACE)))
    for merges in ("average", "ram, {method: ram_plus, preset: paper}"):
        recipe.write_text(_RECIPE.format(merges=merges))
        python("-m", "rammerge", "run", str(recipe))
    python("-m", "rammerge", "pack", *models, str(PLACE / "tool"), "--out", str(PLACE / "patch"))
    agents = [word for agent in ("tool", "code") for word in ("--agent", str(PLACE / agent))]
    python("-m", "rammerge", "merge", *models, *agents, "--method", "ram_plus", "--out", str(PLACE / "merged"))


if __name__ == "__main__":
    print(make(sys.argv[1]))
