"""A new Prefect database, made from its schema.

Prefect makes a database by a hundred migrations, which take five seconds of processor time. The schema that they lead
to, for one version of Prefect, lies beside this file. Prefect migrates a database of any other version itself.

    python -m flows.servers.database    writes the schema anew, once constraints.txt names a different Prefect
"""

import os
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

from rammerge.system.atomic import write_text
from rammerge.system.home import home
from rammerge.system.sqlite import make_from, statements_of

SCHEMA = Path(__file__).with_name("prefect.sql")
_HEAD = "-- What the migrations of Prefect {} make of an empty SQLite database.\n"


def make_database() -> None:
    """Make Prefect's database below rammerge's home, completely or not at all, if it is missing and the schema fits.

    Whoever calls this holds a lock against a second server. A user's own settings may name another database: then
    nothing is made.

    Raises:
        RammergeError: it cannot be written.
    """
    directory = home() / "prefect"
    path = directory / "prefect.db"
    script = SCHEMA.read_text(encoding="utf-8")
    if path.exists() or _is_elsewhere(directory) or not script.startswith(_HEAD.format(version("prefect"))):
        return
    beside = directory / f".{path.name}.new"
    beside.unlink(missing_ok=True)  # of an attempt that was killed
    make_from(script, beside, what=str(path), fix="make room there, or set RAMMERGE_HOME")
    beside.replace(path)


def _is_elsewhere(directory: Path) -> bool:
    """Return whether the environment has Prefect look for its database in another place than `directory`."""
    named = any(name.startswith("PREFECT_") and "_DATABASE_" in name for name in os.environ)
    return named or os.environ.get("PREFECT_HOME") != str(directory)


def write_schema() -> None:
    """Have the installed Prefect make a database, and write the statements that make the same one."""
    with tempfile.TemporaryDirectory() as scratch:
        statements = "\n".join(statements_of(migrate(Path(scratch))))
    write_text(SCHEMA, f"{_HEAD.format(version('prefect'))}{statements}\n")


def migrate(directory: Path) -> Path:
    """Have the installed Prefect make a database by its migrations, in a new process, and return its place."""
    path = directory / "prefect.db"
    command = [sys.executable, "-m", "prefect", "server", "database", "upgrade", "-y"]
    settings = {
        "PREFECT_HOME": str(directory),
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{path}",
    }
    subprocess.run(command, env={**os.environ, **settings}, check=True, stdout=subprocess.DEVNULL)
    return path


if __name__ == "__main__":
    write_schema()
