"""Contract of a new MLflow database: it is the one that MLflow itself makes, and MLflow takes it as its own.

For any other version of MLflow, MLflow makes it.
"""

import re
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from rammerge.errors import RammergeError
from tasks.records import database
from tasks.records.database import SCHEMA, let_mlflow_make, make_database


def content(file: Path) -> list[list[str]]:
    """Return the statements that make a database, in an order of their own: MLflow's is one of chance.

    So is that of a table's constraints, and of the words that a column may have. MLflow's first experiment, which has a
    time in it, is left out.
    """
    with closing(sqlite3.connect(file)) as connection:
        made = [each for each in connection.iterdump() if not each.startswith('INSERT INTO "experiments"')]
    return sorted(sorted(_settled(line) for line in each.splitlines()) for each in made)


def _settled(line: str) -> str:
    return re.sub(r"(?<= IN \()[^)]*", lambda words: str(sorted(words[0].split(", "))), line.strip(" \t,"))


def test_the_schema_is_what_mlflow_makes_and_takes_as_its_own(tmp_path: Path) -> None:
    from mlflow import MlflowClient

    ours, own = tmp_path / "made" / "ours.db", tmp_path / "own.db"
    make_database(f"sqlite:///{ours}")
    let_mlflow_make(own)
    assert content(ours) == content(own), "run `python -m tasks.records.database` and commit the schema"
    assert [file.name for file in ours.parent.iterdir()] == ["ours.db"]
    mlflow = MlflowClient(f"sqlite:///{ours}")
    assert [experiment.name for experiment in mlflow.search_experiments()] == ["Default"]
    assert content(ours) == content(own)


def test_another_mlflow_makes_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "version", lambda _: "3.18.0")
    monkeypatch.setattr(database, "let_mlflow_make", lambda path: path.write_text("its own"))
    make_database(f"sqlite:///{tmp_path / 'new.db'}")
    assert (tmp_path / "new.db").read_text() == "its own"


def test_what_cannot_be_made_whole_is_not_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "broken.sql"
    broken.write_text(SCHEMA.read_text("utf-8")[:10_000])
    monkeypatch.setattr(database, "SCHEMA", broken)
    with pytest.raises(RammergeError, match=r"new\.db cannot be made \(incomplete input\); make room there"):
        make_database(f"sqlite:///{tmp_path / 'new.db'}")
    assert list(tmp_path.iterdir()) == [broken]
