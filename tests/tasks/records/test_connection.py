"""Contract: rammerge makes its own database whole or not at all, where the address says."""

import subprocess
import sys
from pathlib import Path

import pytest

from tasks.records.connection import client


def test_a_kill_while_the_database_is_made_does_no_harm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    database = tmp_path / "mlflow" / "mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{database}")
    halfway = """if True:
        import sys, alembic.command
        def upgrade(*_):
            print("the first tables are made", flush=True)
            sys.stdin.read()
        alembic.command.upgrade = upgrade
        from tasks.records.connection import client
        client()
    """
    command = [sys.executable, "-c", halfway]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "the first tables are made\n"
    (made,) = database.parent.glob(f".*/{database.name}")
    assert made.stat().st_size and not database.exists()
    process.kill()
    process.wait()
    assert not database.exists()
    assert client().search_registered_models() == []
    assert [path.name for path in database.parent.iterdir()] == [database.name]


@pytest.mark.parametrize("query", ["", "?timeout=30"])
def test_the_database_is_made_where_its_address_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, query: str
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'runs.db'}{query}")
    assert client().search_registered_models() == []
    assert [path.name for path in tmp_path.iterdir()] == ["runs.db"]
