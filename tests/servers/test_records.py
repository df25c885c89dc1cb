"""Contract of pruning records: what is removed is gone from both databases, and the next run finds everything done."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.fixtures import forked
from tests.fixtures.pipeline import World

pytestmark = pytest.mark.servers


def rammerge(world: World, *words: str) -> str:
    return forked.finish(world.environment(), *words)


def count(home: Path, database: str, table: str) -> int:
    with closing(sqlite3.connect(home / database)) as connection:
        return int(connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0])


def rows(home: Path) -> dict[str, int]:
    prefect = {table: count(home, "prefect/prefect.db", table) for table in ("flow_run", "task_run", "log", "artifact")}
    return prefect | {"runs": count(home, "mlflow/mlflow.db", "runs")}


def test_records_of_old_runs_go_and_a_run_afterwards_finds_everything_done(tmp_path: Path) -> None:
    world = World(tmp_path)
    # The last one compares with the champion that the one before it has made.
    for merges in (["ram"], ["ram_plus", "average"], ["ram_plus", "average"]):
        rammerge(world, "run", str(world.write(merges=merges)))
    both = rows(world.home)
    words = ["prune", "--versions", "1", "--records", "0"]

    rammerge(world, "rollback", "tiny")
    rammerge(world, "prune", *words[1:])
    assert rows(world.home)["runs"] == both["runs"], "`previous` keeps its record"
    rammerge(world, "promote", "tiny", "2")
    for alias in ("previous", "challenger"):
        drop_alias(world.home, alias)
    dry = rammerge(world, *words, "--dry-run")
    said = rammerge(world, *words)
    for sentence in (
        "removed the registered versions tiny 1",
        "removed 2 records of 1 runs in MLflow",
        "removed 1 flow",
    ):
        assert f"dry run: would have {sentence}" in dry and f"\n{sentence}" in f"\n{said}"
    left = rows(world.home)
    assert (
        left["runs"] == both["runs"] - 2 and left["flow_run"] == both["flow_run"] - 1 and "shrank databases by" in said
    )
    assert all(left[table] < both[table] for table in left)
    assert rammerge(world, "report", str(world.recipe)) and "champion" in rammerge(world, "releases", "tiny")
    again = rammerge(world, "run", str(world.recipe))
    assert " done " not in again, again


def drop_alias(home: Path, alias: str) -> None:
    with closing(sqlite3.connect(home / "mlflow" / "mlflow.db")) as connection, connection:
        connection.execute("DELETE FROM registered_model_aliases WHERE alias = ?", (alias,))
