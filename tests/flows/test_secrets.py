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
from tests.fixtures.pipeline import World

PASSWORD, TOKEN = "planted-password-1234", "hf_planted_token_1234"
SECRETS = (PASSWORD, TOKEN)
COMMAND = [sys.executable, "-m", "rammerge"]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("world"))


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
    secrets = {"HF_TOKEN": TOKEN, "MLFLOW_TRACKING_URI": tracking, "AWS_SECRET_ACCESS_KEY": PASSWORD}
    return os.environ | world.environment() | secrets


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


def leaks(root: Path) -> list[str]:
    """The files below `root` that hold a secret, databases and logs included."""
    files = (path for path in root.rglob("*") if path.is_file())
    return [str(path) for path in files if any(secret.encode() in path.read_bytes() for secret in SECRETS)]


def test_a_run_with_credentials_leaves_none_behind(world: World, server: str) -> None:
    code, output, seen = run(world, server, "run", str(world.write()))
    assert code == 0, output
    assert "champion" in output and "http://***@127.0.0.1" in output
    assert not [text for text in (output, *seen) if any(secret in text for secret in SECRETS)]
    assert leaks(world.root) == []


@pytest.mark.parametrize("words", [("releases", "tiny"), ("promote", "tiny", "1"), ("rollback", "tiny"), ("run",)])
def test_an_error_does_not_tell_the_credentials(world: World, words: tuple[str, ...]) -> None:
    closed = f"http://planted:{PASSWORD}@127.0.0.1:{free_port()}"
    fast = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "MLFLOW_HTTP_REQUEST_TIMEOUT": "2"}
    command = [*words, str(world.write(merges=["ram"]))] if words == ("run",) else [*words]
    done = subprocess.run(
        [*COMMAND, *command, "--debug"], env=environment(world, closed) | fast, capture_output=True, text=True
    )
    assert done.returncode != 0
    assert not [secret for secret in SECRETS if secret in done.stdout + done.stderr]
    assert leaks(world.root) == []
