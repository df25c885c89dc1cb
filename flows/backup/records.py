"""Records that name files by their path, in a home that lies elsewhere than the one that they were copied of."""

import re
import sqlite3
from contextlib import closing
from pathlib import Path


def move_records(copy: Path, old: str, new: str) -> None:
    """Have the records that name files by their path name them in the new home."""
    forms = {f"{old}/": f"{new}/", f"{Path(old).as_uri()}/": f"{Path(new).as_uri()}/"}
    # Not where it is the end of a longer path, and in one pass: the new path may contain the old one.
    named = re.compile(rf"(?<![\w.~%-])(?:{'|'.join(map(re.escape, forms))})")

    def moved(text: str) -> str:
        return named.sub(lambda found: forms[found[0]], text)

    # The notes of `tasks.records.scratch` name directories that the next registration removes.
    for path in (*(copy / "runs").glob("*.json"), *(copy / "mlflow" / "scratch").glob("*")):
        path.write_text(moved(path.read_text("utf-8")), "utf-8")
    if (mlflow := copy / "mlflow" / "mlflow.db").is_file():
        with closing(sqlite3.connect(mlflow)) as database, database:
            database.create_function("moved", 1, moved, deterministic=True)
            for table, column in _text_columns(database):
                where = f'instr("{column}", ?) OR instr("{column}", ?)'
                database.execute(f'UPDATE "{table}" SET "{column}" = moved("{column}") WHERE {where}', tuple(forms))


def _text_columns(database: sqlite3.Connection) -> list[tuple[str, str]]:
    tables = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    columns = [(table, row[1], row[2]) for table in tables for row in database.execute(f'PRAGMA table_info("{table}")')]
    return [(table, column) for table, column, kind in columns if kind.startswith(("VARCHAR", "TEXT"))]
