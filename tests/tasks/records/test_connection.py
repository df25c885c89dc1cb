"""Contract: rammerge makes its own database whole or not at all, where the address says.

A database that cannot be used is refused before any work, with the fix.
"""

import contextlib
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import mlflow.version
import pytest
import sqlalchemy

from rammerge.errors import InputError
from tasks.records.connection import client, require_mlflow
from tasks.records.database import open_database


def test_a_kill_while_the_database_is_made_does_no_harm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    database = tmp_path / "mlflow" / "mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{database}")
    halfway = """if True:
        import sys, alembic.command
        def upgrade(*_):
            print("the first tables are made", flush=True)
            sys.stdin.read()
        alembic.command.upgrade = upgrade
        from tasks.records import database
        database.version = lambda _: "another"  # which MLflow makes itself, table by table
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


def refusal(monkeypatch: pytest.MonkeyPatch, uri: str) -> str:
    """Return the sentence with which MLflow at `uri` is refused before any work."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with pytest.raises(InputError) as caught:
        require_mlflow()
    return str(caught.value)


def other_schema(place: Path, revision: str) -> Path:
    """Return a database that MLflow made, marked as one of the schema `revision`."""
    client()  # makes the module's database
    made = shutil.copy(place / "mlflow.db", place / f"{revision}.db")
    with contextlib.closing(sqlite3.connect(made)) as database, database:
        database.execute("UPDATE alembic_version SET version_num = ?", [revision])
    return Path(made)


def test_an_older_schema_names_the_command_that_mends_it(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = f"sqlite:///{other_schema(place, '451aebb31d03')}"
    assert refusal(monkeypatch, uri).endswith(f"make a backup, then run `mlflow db upgrade {uri}`")
    secret = f"{uri}?password=secret-word"
    sentence = refusal(monkeypatch, secret)
    assert sentence.endswith('run `mlflow db upgrade "$MLFLOW_TRACKING_URI"`') and "secret-word" not in sentence


def test_a_newer_schema_is_called_one(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sentence = refusal(monkeypatch, f"sqlite:///{other_schema(place, 'ffffffffffff')}")
    assert f"was written by a newer MLflow than {mlflow.version.VERSION}" in sentence


def test_a_database_that_cannot_be_used_is_told_from_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # MLflow takes an address that SQLite parses for a path, and makes its directories
    (tmp_path / "text.db").write_text("these are words " * 100)
    (tmp_path / "directory.db").mkdir()
    (tmp_path / "file").touch()
    for name in ("locked", "read-only", "others"):
        with contextlib.closing(sqlite3.connect(tmp_path / f"{name}.db")) as database:
            database.execute("CREATE TABLE runs (other TEXT)")
    expected = {
        "text.db": "is no SQLite database",
        "directory.db": "is no file that can be opened",
        "others.db": "has tables that are not MLflow's",
        f"file:{tmp_path}/read-only.db?mode=ro&uri=true": "cannot be written",
        "file/runs.db": "cannot be made",
    }
    for name, words in expected.items():
        uri = f"sqlite:///{name}" if name.startswith("file:") else f"sqlite:///{tmp_path / name}"
        assert words in refusal(monkeypatch, uri)
    with contextlib.closing(sqlite3.connect(tmp_path / "locked.db")) as writer:
        writer.execute("BEGIN IMMEDIATE")
        sentence = refusal(monkeypatch, f"sqlite:///{tmp_path / 'locked.db'}?timeout=0.1")
        assert "is locked by a different process; wait" in sentence


@pytest.mark.parametrize("uri", ["foo://bar", "postgres://host/name", "sqlite+nothing:///x", "http://127.0.0.1:99999"])
def test_an_address_of_no_kind_is_refused_with_those_that_there_are(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sentence = refusal(monkeypatch, uri)
    assert uri in sentence and "set MLFLOW_TRACKING_URI to an address like http://HOST:PORT, sqlite:" in sentence


def test_a_directory_of_records_is_refused_with_the_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "`mlflow migrate-filestore`" in refusal(monkeypatch, str(tmp_path / "mlruns"))


@pytest.mark.parametrize("driver", ["postgresql+psycopg2", "postgresql+psycopg", "mysql+pymysql", "mssql+pyodbc"])
def test_a_database_server_that_never_answers_is_given_up(driver: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[int] = []

    def connect(_: object, connect_args: dict[str, int]) -> sqlalchemy.Engine:
        given.extend(connect_args.values())
        return sqlalchemy.create_engine("sqlite://")

    with monkeypatch.context() as patch:
        make = sqlalchemy.create_engine
        patch.setattr(sqlalchemy, "create_engine", lambda url, **args: connect(url, **args) if args else make(url))
        open_database(f"{driver}://127.0.0.1/runs", write=True)
    assert given == [5]
