"""Contract: old events of rammerge's runs go from Prefect's own database; newer ones and those of other flows stay."""

import json
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from flows.servers.database import SCHEMA
from rammerge.system.sqlite import make_from
from tasks.records.events import forget_events


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """Prefect's database with events of two runs, a day and ten days ago."""
    path = tmp_path / "prefect.db"
    make_from(SCHEMA.read_text("utf-8"), path, what="", fix="")
    with closing(sqlite3.connect(path)) as connection, connection:
        for days in (1, 10):
            for flow in ("merge-and-evaluate", "a flow of the user's"):
                run = f"prefect.flow-run.{flow} {days}"
                write(connection, f"{flow} run", days, {run: ("", "a run"), f"prefect.flow.{flow}": ("flow", flow)})
                # As Prefect tells of an artifact's collection: without the flow.
                write(connection, f"{flow} artifact", days, {"prefect.artifact": ("", ""), run: ("flow-run", "")})
    return path


def write(connection: sqlite3.Connection, event: str, days: int, resources: Mapping[str, tuple[str, str]]) -> None:
    when, identity = str(datetime.now(UTC).replace(tzinfo=None) - timedelta(days=days)), f"{event} {days}"
    connection.execute(
        "INSERT INTO events (occurred, event, resource_id, resource, payload, received, recorded, id)"
        " VALUES (?, ?, ?, '{}', '{}', ?, ?, ?)",
        (when, event, next(iter(resources)), when, when, identity),
    )
    for resource, (role, name) in resources.items():
        connection.execute(
            "INSERT INTO event_resources (occurred, resource_id, resource_role, resource, event_id)"
            " VALUES (?, ?, ?, ?, ?)",
            (when, resource, role, json.dumps({"prefect.resource.name": name}), identity),
        )


def left(database: Path) -> tuple[list[str], int]:
    with closing(sqlite3.connect(database)) as connection:
        events = [event for (event,) in connection.execute("SELECT id FROM events ORDER BY id")]
        ((resources,),) = connection.execute("SELECT count(*) FROM event_resources")
        return events, resources


def test_old_events_of_our_runs_go_and_no_others(database: Path) -> None:
    before = left(database)
    assert forget_events(database, 5, dry_run=True) == 2 and left(database) == before
    assert forget_events(database, 5) == 2 and forget_events(database, 5) == 0
    events, resources = left(database)
    assert set(before[0]) - set(events) == {"merge-and-evaluate run 10", "merge-and-evaluate artifact 10"}
    assert resources == before[1] - 4


def test_a_database_that_is_elsewhere_or_of_another_kind_is_left_alone(tmp_path: Path) -> None:
    assert forget_events(tmp_path / "missing.db", 0) == 0 and not (tmp_path / "missing.db").exists()
    with closing(sqlite3.connect(tmp_path / "other.db")) as connection:
        connection.execute("CREATE TABLE t (x)")
    assert forget_events(tmp_path / "other.db", 0) == 0
