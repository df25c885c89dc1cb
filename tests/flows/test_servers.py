"""Contract of servers that a run needs: they are asked first, and what is wrong is one sentence with the fix.

What will not recover, such as refused credentials, is asked for once.
"""

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from unittest.mock import patch

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.cli.program import main
from tests.fixtures.addresses import nobody
from tests.fixtures.pipeline import World

pytestmark = pytest.mark.long

DENIED = b'{"error_code": "PERMISSION_DENIED", "message": "Permission denied"}'  # as MLflow says it


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("world"))


@contextmanager
def refusing(status: int) -> Iterator[tuple[str, list[str]]]:
    """Serve `status` to every request; yield the address and the paths that were asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            body = DENIED if status == 403 else b"You are not authenticated."
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self) -> None:
            self.do_GET()

        def log_message(self, *_: object) -> None:
            """Keep the tests' output clean."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def silent() -> Iterator[tuple[str, socket.socket]]:
    """Yield an address of loopback where connections are accepted and nothing is answered, and its socket."""
    with socket.create_server(("127.0.0.1", 0), backlog=16) as listening:  # the kernel accepts them
        yield f"http://127.0.0.1:{listening.getsockname()[1]}", listening


def connections(listening: socket.socket) -> int:
    """Return how many connections there were."""
    listening.setblocking(False)
    count = 0
    with suppress(BlockingIOError):
        while True:
            listening.accept()[0].close()
            count += 1
    return count


def refused(world: World, *command: str, **variables: str) -> str:
    """Run a command that must be refused; return the last line that it printed, which is the sentence."""
    ours = ("PREFECT_", "MLFLOW_")
    bare = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    done = subprocess.run(
        [sys.executable, "-m", "rammerge", *command],
        env={**bare, "RAMMERGE_HOME": str(world.home), **variables},
        capture_output=True,
        text=True,
    )
    assert done.returncode in (1, 2) and "Traceback" not in done.stderr and "unexpected" not in done.stderr
    sentence = done.stderr.strip().splitlines()[-1]
    assert sentence.startswith("error: ")
    return sentence


def refused_here(world: World, capsys: pytest.CaptureFixture[str], *command: str, **variables: str) -> str:
    """Return the sentence with which a command is refused, which runs in this process."""
    # Commands set variables for the rest of their process, so all are restored.
    restored, words = patch.dict(os.environ, world.environment() | variables), ["rammerge", *command]
    with restored, patch.object(sys, "argv", words), pytest.raises(SystemExit) as exit_:
        main()
    said = capsys.readouterr().err
    assert exit_.value.code in (1, 2) and "Traceback" not in said and "unexpected" not in said
    sentence = said.strip().splitlines()[-1]
    assert sentence.startswith("error: ")
    return sentence


def commands(world: World) -> list[tuple[str, ...]]:
    """Return every command that needs MLflow."""
    recipe = str(world.recipe)
    return [("check", recipe), ("run", recipe), ("releases", "x"), ("promote", "x", "1"), ("rollback", "x")]


@pytest.mark.usefixtures("prefect_api")
def test_an_mlflow_that_is_down_is_named_by_every_command(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    with nobody() as place:
        address = f"http://{place}"
        for command in commands(world):
            sentence = refused_here(world, capsys, *command, MLFLOW_TRACKING_URI=address)
            assert f"MLflow at {address} does not answer; start it, or correct MLFLOW_TRACKING_URI" in sentence


@pytest.mark.parametrize("command", ["check", "promote"])
@pytest.mark.usefixtures("prefect_api")
def test_an_mlflow_that_never_answers_is_asked_once(
    command: str, world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("check", str(world.recipe)) if command == "check" else ("promote", "x", "1")
    with silent() as (address, listening):
        sentence = refused_here(world, capsys, *words, MLFLOW_TRACKING_URI=address)
        assert f"MLflow at {address} does not answer" in sentence and "or correct MLFLOW_TRACKING_URI" in sentence
        assert connections(listening) == 1


def test_a_prefect_that_never_answers_is_asked_once(world: World) -> None:
    with silent() as (address, listening):
        sentence = refused(world, "check", str(world.recipe), PREFECT_API_URL=f"{address}/api")
        assert f"Prefect at {address}/api does not answer" in sentence and "or correct PREFECT_API_URL" in sentence
        assert connections(listening) == 1


@pytest.mark.parametrize(
    ("status", "words"), [(401, "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"), (403, "permission")]
)
@pytest.mark.usefixtures("prefect_api")
def test_an_mlflow_that_refuses_is_asked_once_by_every_command(
    status: int, words: str, world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in commands(world):
        with refusing(status) as (address, asked):
            sentence = refused_here(world, capsys, *command, MLFLOW_TRACKING_URI=address)
            assert words in sentence and f"({status})" in sentence and len(asked) == 1, command


@pytest.mark.parametrize(
    "uri", ["postgresql://user:secret-word@127.0.0.1:9/runs", "mysql://user:secret-word@127.0.0.1:9/runs"]
)
def test_a_missing_driver_is_named(uri: str, world: World, capsys: pytest.CaptureFixture[str]) -> None:
    sentence = refused_here(world, capsys, "check", str(world.recipe), MLFLOW_TRACKING_URI=uri)
    assert "which is not installed; run `pip install " in sentence and "secret-word" not in sentence


def test_a_prefect_that_is_down_or_refuses_is_named(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    def refused_with(address: str, command: str) -> str:
        # Prefect has read its variables, and this process imported it long ago.
        with temporary_settings({PREFECT_API_URL: f"{address}/api"}):
            return refused_here(world, capsys, command, str(world.recipe), PREFECT_API_URL=f"{address}/api")

    for command in ("check", "run"):
        with nobody() as place:
            sentence = refused_with(f"http://{place}", command)
            assert f"Prefect at http://{place}/api does not answer" in sentence
            assert "correct PREFECT_API_URL" in sentence
        with refusing(401) as (address, asked):
            sentence = refused_with(address, command)
            assert "refuses the credentials (401); set PREFECT_API_AUTH_STRING" in sentence and len(asked) == 1


def test_an_experiment_that_was_deleted_is_restored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'runs.db'}")
    from tasks.records.connection import client
    from tasks.records.experiments import experiment_of

    made = experiment_of(client(), "again")
    client().delete_experiment(made)
    assert experiment_of(client(), "again") == made
    assert client().get_experiment(made).lifecycle_stage == "active"
