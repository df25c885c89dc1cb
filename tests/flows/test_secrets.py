"""Contract: credentials are used and never written: not on a terminal, in a file, a record or a process's arguments."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from flows.servers.local import mlflow_server
from rammerge.system.servers import free_port
from tests.fixtures import forked
from tests.fixtures.addresses import nobody
from tests.fixtures.canaries import VARIABLES, leaking_files
from tests.fixtures.pipeline import World
from tests.fixtures.planted import plant_code

pytestmark = pytest.mark.servers

PASSWORD = "planted-password-1234"
SECRETS = (PASSWORD, "canary-")
COMMAND = [sys.executable, "-m", "rammerge"]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """A world with a secret in every variable and address, and with models that bring code."""
    world = World(tmp_path_factory.mktemp("world"))
    for model in (world.base, *world.agents.values()):
        plant_code(model, world.root / "it ran")
    return world


@pytest.fixture(scope="module")
def server(world: World) -> Iterator[str]:
    """The address of an MLflow server over a database of its own, with credentials in it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAMMERGE_HOME", str(world.root / "server"))
        (world.root / "server").mkdir()
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{world.root / 'server' / 'mlflow.db'}")
        port = free_port()
        with mlflow_server(port=port) as started:
            started.wait_until_healthy()
            yield f"http://planted:{PASSWORD}@127.0.0.1:{port}"


def environment(world: World, tracking: str) -> dict[str, str]:
    # With a key or a login for a Prefect API a run would be one of the cloud's, or of a server with a login.
    planted = {name: value for name, value in VARIABLES.items() if not name.startswith("PREFECT_")}
    return os.environ | world.environment() | planted | {"MLFLOW_TRACKING_URI": tracking}


def arguments() -> set[str]:
    """The arguments of all processes that run now."""
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            found.add((process / "cmdline").read_bytes().decode(errors="replace"))
    return found


def run(world: World, tracking: str, *words: str) -> tuple[int, str, set[str]]:
    """Run a command to its end; return its exit code, its output, and the arguments of processes seen meanwhile."""
    seen: set[str] = set()
    with (world.root / "output").open("w+") as output:
        process = subprocess.Popen(
            [*COMMAND, *words], env=environment(world, tracking), stdout=output, stderr=subprocess.STDOUT
        )
        while process.poll() is None:
            seen |= arguments()
            with suppress(subprocess.TimeoutExpired):
                process.wait(0.2)
        output.seek(0)
        return process.returncode, output.read(), seen


def test_a_run_with_credentials_leaves_none_behind_and_runs_no_code_of_models(world: World, server: str) -> None:
    code, output, seen = run(world, server, "run", str(world.write()))
    assert code == 0, output
    assert "champion" in output and "http://***@127.0.0.1" in output
    assert not [text for text in (output, *seen) if any(secret in text for secret in SECRETS)]
    assert leaking_files(world.root, SECRETS) == []
    assert not (world.root / "it ran").exists()


@pytest.mark.parametrize("words", [("releases", "tiny"), ("promote", "tiny", "1"), ("rollback", "tiny"), ("run",)])
def test_an_error_does_not_tell_the_credentials(world: World, words: tuple[str, ...]) -> None:
    fast = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "MLFLOW_HTTP_REQUEST_TIMEOUT": "2"}
    command = [*words, str(world.write(merges=["ram"]))] if words == ("run",) else [*words]
    with nobody() as place:
        told = environment(world, f"http://planted:{PASSWORD}@{place}") | fast
        code, said = forked.run(told, *command, "--debug")
    assert code != 0
    assert not [secret for secret in SECRETS if secret in said]
    assert leaking_files(world.root, SECRETS) == []
