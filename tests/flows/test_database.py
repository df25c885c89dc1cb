"""Contract of a new Prefect database: it is the one that Prefect's own migrations make, and only where that is asked.

Any other database, or one of any other version of Prefect, is left to Prefect.
"""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from flows.servers import database
from flows.servers.database import SCHEMA, make_database, migrate
from rammerge.errors import RammergeError


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    directory = tmp_path / "prefect"
    directory.mkdir()
    monkeypatch.setenv("RAMMERGE_HOME", str(tmp_path))
    monkeypatch.setenv("PREFECT_HOME", str(directory))
    return directory / "prefect.db"


def content(file: Path) -> list[list[str]]:
    """Return the statements that make a database, and their lines, sorted: Prefect makes them in an order of chance."""
    with closing(sqlite3.connect(file)) as connection:
        return sorted(sorted(line.rstrip(", ") for line in made.split("\n")) for made in connection.iterdump())


def test_the_schema_is_what_the_migrations_of_prefect_make(path: Path, tmp_path: Path) -> None:
    (own := tmp_path / "own").mkdir()
    make_database()
    assert content(path) == content(migrate(own)), "run `python -m flows.servers.database` and commit the schema"


def test_a_database_that_exists_stays(path: Path) -> None:
    path.write_bytes(b"someone's")
    make_database()
    assert path.read_bytes() == b"someone's"


def test_what_a_killed_attempt_left_is_no_database(path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    whole = SCHEMA.read_text("utf-8")
    broken = tmp_path / "broken.sql"
    broken.write_text(whole[: len(whole) // 2])
    monkeypatch.setattr(database, "SCHEMA", broken)
    with pytest.raises(RammergeError, match=r"prefect\.db cannot be made \(incomplete input\)"):
        make_database()
    assert not path.exists()
    monkeypatch.setattr(database, "SCHEMA", SCHEMA)
    make_database()
    assert ["COMMIT;"] in content(path)
    assert [file.name for file in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize(
    ("name", "value"),
    [("PREFECT_SERVER_DATABASE_CONNECTION_URL", "postgresql+asyncpg://db/prefect"), ("PREFECT_HOME", "/elsewhere")],
)
def test_a_user_who_has_another_database_gets_none(
    path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    make_database()
    assert not path.exists()


def test_another_prefect_makes_its_own(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "version", lambda _: "3.9.0")
    make_database()
    assert not path.exists()
