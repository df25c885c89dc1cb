"""Records that name files by their path, in a home that lies elsewhere than the one that they were copied of."""

import sqlite3
from contextlib import closing
from pathlib import Path


def move_records(copy: Path, old: str, new: str) -> None:
    """Have the records that name files by their path name them in the new home."""
    forms = [(f"{before}/", f"{after}/") for before, after in {(old, new), (Path(old).as_uri(), Path(new).as_uri())}]
    unfinished = copy / "mlflow" / "unfinished"  # a directory that the next registration removes
    for path in [*(copy / "runs").glob("*.json"), *([unfinished] if unfinished.is_file() else [])]:
        text = path.read_text("utf-8")
        for before, after in forms:
            text = text.replace(before, after)
        path.write_text(text, "utf-8")
    if (mlflow := copy / "mlflow" / "mlflow.db").is_file():
        with closing(sqlite3.connect(mlflow)) as database, database:
            for table, column in _text_columns(database):
                for before, after in forms:
                    database.execute(
                        f'UPDATE "{table}" SET "{column}" = replace("{column}", ?, ?) WHERE instr("{column}", ?)',
                        (before, after, before),
                    )


def _text_columns(database: sqlite3.Connection) -> list[tuple[str, str]]:
    tables = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    columns = [(table, row[1], row[2]) for table in tables for row in database.execute(f'PRAGMA table_info("{table}")')]
    return [(table, column) for table, column, kind in columns if kind.startswith(("VARCHAR", "TEXT"))]
