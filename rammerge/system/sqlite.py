"""SQLite databases: making them from statements beside the code, since libraries take seconds, and shrinking them."""

import sqlite3
from contextlib import closing, suppress
from pathlib import Path

from rammerge.errors import RammergeError


def make_from(script: str, path: Path, *, what: str, fix: str) -> None:
    """Run the statements that make a new database.

    Args:
        script: what `statements_of` returned.
        path: the database, which is complete only once this returns.
        what: its name in the message.
        fix: what the user can do, for the message.

    Raises:
        RammergeError: there is no room for it, or the script is damaged.
    """
    try:
        with closing(sqlite3.connect(path)) as database:
            database.executescript(f"PRAGMA journal_mode = OFF;\n{script}")
    except sqlite3.Error as error:
        raise RammergeError(f"{what} cannot be made ({error}); {fix}") from error


def statements_of(path: Path) -> list[str]:
    """Return the statements that make the same database."""
    with closing(sqlite3.connect(path)) as database:
        return list(database.iterdump())


def shrink(path: Path) -> int:
    """Give the room of deleted rows back to the disk, unless the database is missing or in use; return the bytes."""
    before = path.stat().st_size if path.exists() else 0
    # The error means that the database is in use, or that the disk has no room for the copy that SQLite makes. Then
    # SQLite goes on using the free pages of the file.
    with suppress(sqlite3.OperationalError):
        if before:
            with closing(sqlite3.connect(path, timeout=0, isolation_level=None)) as database:
                # With a write-ahead log this fails if anybody has the database open.
                database.execute("PRAGMA locking_mode = EXCLUSIVE")
                if database.execute("PRAGMA freelist_count").fetchone()[0]:
                    database.execute("VACUUM")
                    database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return before - (path.stat().st_size if path.exists() else 0)
