"""Removing Prefect's events of rammerge's runs that happened long ago, from Prefect's own database below the home.

Events are most of that database. Prefect's API removes none, and Prefect itself only what is a week old.
"""

import sqlite3
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tasks.records.flow_runs import FLOWS

_SECONDS = 5.0  # to wait for a server that writes
# An event is of a run if it names it, and a run is rammerge's if any event names it together with one of its flows.
_OLD = f"""
CREATE TEMP TABLE old AS SELECT DISTINCT named.event_id AS id FROM event_resources AS named
WHERE named.occurred < ? AND named.resource_id IN (
    SELECT run.resource_id FROM event_resources AS flow JOIN event_resources AS run USING (event_id)
    WHERE flow.resource_role = 'flow' AND run.resource_id LIKE 'prefect.flow-run.%'
    AND json_extract(flow.resource, '$."prefect.resource.name"') IN ({", ".join("?" * len(FLOWS))})
)
"""


def forget_events(database: Path, days: float, *, dry_run: bool = False) -> int:
    """Remove the events of more than some days ago, and return how many there were; none if the database is in use.

    Args:
        database: SQLite, which may be missing.
        days: since an event.
        dry_run: only count.
    """
    if not database.exists():
        return 0
    before = f"{datetime.now(UTC) - timedelta(days=days):%Y-%m-%d %H:%M:%S.%f}"
    count = 0
    with suppress(sqlite3.OperationalError), closing(sqlite3.connect(database, timeout=_SECONDS)) as connection:
        connection.execute(_OLD, (before, *FLOWS))
        ((found,),) = connection.execute("SELECT count(*) FROM old")
        if not dry_run:
            with connection:
                connection.execute("DELETE FROM event_resources WHERE event_id IN (SELECT id FROM old)")
                connection.execute("DELETE FROM events WHERE id IN (SELECT id FROM old)")
        count = found
    return count
