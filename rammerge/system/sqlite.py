"""SQLite databases: made from statements beside the code, because libraries take seconds, and shrunk."""

import sqlite3
from contextlib import closing, suppress
from pathlib import Path

from rammerge.errors import RammergeError


def make_from(script: str, path: Path, *, what: str, fix: str) -> None:
    """Run the statements that make a new database.

    Args:
        script: what `statements_of` returned.
        path: the database, which is whole only once this returns.
        what: what cannot be made, for the message.
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
    """Give back to the disk what deleted rows took, unless the database is missing or in use; return the bytes."""
    before = path.stat().st_size if path.exists() else 0
    # In use, or no room for the copy that SQLite makes meanwhile: what is free in the file is used again.
    with suppress(sqlite3.OperationalError):
        if before:
            with closing(sqlite3.connect(path, timeout=0, isolation_level=None)) as database:
                database.execute(
                    "PRAGMA locking_mode = EXCLUSIVE"
                )  # with a log beside the file: only if nobody has it open
                if database.execute("PRAGMA freelist_count").fetchone()[0]:
                    database.execute("VACUUM")
                    database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return before - (path.stat().st_size if path.exists() else 0)
