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
from typing import TYPE_CHECKING

from rammerge.system.servers import LOOPBACK, end_with_parent, free_port
from tests.fixtures.waiting import PATIENCE_SECONDS, wait_until

if TYPE_CHECKING:
    import psycopg

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

    def drop_connections(self) -> int:
        """End every connection, as a restart or a failover does; return how many there were."""
        others = "FROM pg_stat_activity WHERE pid != pg_backend_pid() AND backend_type = 'client backend'"
        with _connect(self.port) as connection:
            return len(connection.execute(f"SELECT pg_terminate_backend(pid) {others}").fetchall())


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
        with suppress(psycopg.OperationalError), _connect(port):
            return True
        return False

    wait_until(connected, "PostgreSQL")
    with _connect(port) as connection:
        for name in DATABASES:
            connection.execute(f"CREATE DATABASE {name}")


def _connect(port: int) -> "psycopg.Connection":
    import psycopg

    return psycopg.connect(host=LOOPBACK, port=port, user=USER, password=PASSWORD, dbname="postgres", autocommit=True)
