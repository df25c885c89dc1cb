"""SQLite databases that are made from statements beside the code, because the libraries that use them take seconds."""

import sqlite3
from contextlib import closing
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
