"""Contract of `rammerge serve`: passwords that nothing tells, migrations as a step of their own, and a common end."""

import os
import signal
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from rammerge.system.servers import answers
from tests.fixtures.program import processes_in
from tests.fixtures.waiting import PATIENCE_SECONDS, wait_until
from tests.servers.site.conftest import MLFLOW_PASSWORD, PREFECT_LOGIN, Site, serving
from tests.servers.site.postgresql import PASSWORD

pytestmark = [pytest.mark.servers, pytest.mark.long]


def status(url: str) -> int:
    """Return how a server answers a stranger."""
    try:
        with urllib.request.urlopen(url, timeout=PATIENCE_SECONDS) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_databases_that_need_migrations_are_refused_with_the_command(site: Site) -> None:
    code, said = site.refused
    assert code == 2
    assert "the database of Prefect and of MLflow and of MLflow's users needs migrations" in said
    same = "--prefect-db and --mlflow-db and --users-db"
    assert f"make a backup, then run `rammerge migrate` with the same {same}\n" in said


def test_strangers_see_health_and_nothing_else(site: Site) -> None:
    for path in ("/api/health", "/api/ready"):
        assert status(site.prefect + path) == 200
    assert status(f"{site.prefect}/api/admin/version") == 401
    assert status(f"{site.mlflow}/health") == 200
    assert status(f"{site.mlflow}/api/2.0/mlflow/experiments/search?max_results=1") == 401
    assert site.ask("/admin/version")


def test_passwords_are_in_no_command_line_and_no_log(site: Site) -> None:
    secrets = [PREFECT_LOGIN.partition(":")[2], MLFLOW_PASSWORD, PASSWORD]
    said = [(each / "cmdline").read_text() for each in processes_in(site.home)]
    said += [log.read_text() for log in (site.home / "logs").glob("*.log")]
    said.append((site.home / "mlflow" / "users.ini").read_text())
    assert len(said) > 5 and not [text for text in said if any(secret in text for secret in secrets)]


def test_leases_are_on_the_disk(site: Site) -> None:
    site.ask("/v2/concurrency_limits/", {"name": "gpu", "limit": 1})
    taken = site.ask("/v2/concurrency_limits/increment-with-lease", {"names": ["gpu"], "slots": 1})
    assert (site.home / "prefect" / "concurrency_leases" / f"{taken['lease_id']}.json").is_file()


def test_a_server_that_dies_ends_the_other(unmigrated: Site, tmp_path: Path) -> None:
    # On SQLite below the home, without passwords: what `rammerge serve` is without options.
    alone = Site(tmp_path / "home", unmigrated.database, options=(), secrets={})
    with serving(alone) as process:
        assert not (alone.home / "mlflow" / "users.ini").exists()
        (mlflow,) = [
            int(each.name)
            for each in processes_in(alone.home)
            if b"mlflow\0server\0" in (each / "cmdline").read_bytes()
        ]
        os.kill(mlflow, signal.SIGKILL)
        _, said = process.communicate(timeout=PATIENCE_SECONDS)
        assert process.returncode == 1 and "error: mlflow stopped (code -9); see " in said
        wait_until(lambda: not processes_in(alone.home), "the end of both")
        assert not answers(f"{alone.prefect}/api/health")
