"""A PostgreSQL server for the tests, from Debian's packages, on a free port of loopback."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from signal import SIGINT

from rammerge.system.servers import LOOPBACK, end_with_parent, free_port
from tests.fixtures.waiting import PATIENCE_SECONDS, wait_until

USER, PASSWORD = "rammerge", "only-for-tests-3f1c"
DATABASES = ("prefect", "mlflow", "users")
# PostgreSQL refuses to run as root, for whom its packages make a user.
_OWNER = "postgres" if os.geteuid() == 0 else None


@dataclass(frozen=True)
class PostgreSQL:
    """A server with three empty databases."""

    port: int
    programs: Path

    def address(self, driver: str, database: str) -> str:
        """Return the address of a database, without the password."""
        return f"postgresql+{driver}://{USER}@{LOOPBACK}:{self.port}/{database}"


def find_programs() -> Path | None:
    """Return the directory of PostgreSQL's programs, or None where Debian's package is not installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    on_path = shutil.which("postgres")
    return found[-1].parent if found else Path(on_path).parent if on_path else None


@contextmanager
def running(programs: Path) -> Iterator[PostgreSQL]:
    """Run a new server while the context lasts."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="rammerge-postgresql-", ignore_cleanup_errors=True) as scratch:
        data, password = Path(scratch) / "data", Path(scratch) / "password"
        password.write_text(PASSWORD)
        if _OWNER:
            for path in (Path(scratch), password):
                shutil.chown(path, _OWNER, _OWNER)
        made = [str(programs / "initdb"), "-D", str(data), "-U", USER, f"--pwfile={password}"]
        made += ["--auth=scram-sha-256", "--no-sync"]
        subprocess.run(made, check=True, stdout=subprocess.DEVNULL, cwd=scratch, user=_OWNER, group=_OWNER)
        options = ["-c", f"port={port}", "-c", f"listen_addresses={LOOPBACK}", "-c", "unix_socket_directories="]
        with (Path(scratch) / "log").open("wb") as log:
            server = subprocess.Popen(
                [programs / "postgres", "-D", data, *options, "-c", "fsync=off"],
                stdout=log,
                stderr=log,
                cwd=scratch,
                preexec_fn=end_with_parent,
                user=_OWNER,
                group=_OWNER,
            )
        try:
            _make_databases(port)
            yield PostgreSQL(port, programs)
        finally:
            server.send_signal(SIGINT)  # without waiting for clients
            server.wait(PATIENCE_SECONDS)


def _make_databases(port: int) -> None:
    import psycopg

    def connected() -> bool:
        with suppress(psycopg.OperationalError), connect():
            return True
        return False

    def connect() -> "psycopg.Connection":
        return psycopg.connect(
            host=LOOPBACK, port=port, user=USER, password=PASSWORD, dbname="postgres", autocommit=True
        )

    wait_until(connected, "PostgreSQL")
    with connect() as connection:
        for name in DATABASES:
            connection.execute(f"CREATE DATABASE {name}")
