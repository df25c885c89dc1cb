"""Contract: `kill -9` of a command at any moment leaves no process behind.

Running the same command again, even twice at once, finishes and redoes at most what was being done.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.fixtures.pipeline import World

COMMAND = [sys.executable, "-m", "rammerge"]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("world"))


CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(world: World) -> Iterator[Start]:
    """Return a function that starts the command line in this world; what a failed test leaves running is ended."""
    started: list[subprocess.Popen[str]] = []
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PREFECT_", "MLFLOW_"))}

    def start(*arguments: str) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [*COMMAND, *arguments],
            env={**environment, "RAMMERGE_HOME": str(world.home)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def processes_of(world: World) -> list[int]:
    """Return the processes that work in this world's home."""
    found = []
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            environment = (directory / "environ").read_bytes()
        except OSError:
            continue
        if f"RAMMERGE_HOME={world.home}\0".encode() in environment:
            found.append(int(directory.name))
    return found


def wait_until_gone(world: World, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while processes_of(world):
        assert time.monotonic() < deadline, "processes were left behind"
        time.sleep(0.1)


def test_killed_then_finished(world: World, start: Start) -> None:
    process = start("run", str(world.recipe))
    assert process.stderr is not None
    for line in process.stderr:
        if "evaluate base" in line:
            break
    else:
        pytest.fail("ended before it evaluated anything")
    process.send_signal(signal.SIGKILL)
    process.wait()
    wait_until_gone(world, 15)

    # Twice at once: they share the work, and register and promote one version.
    both = [start("run", str(world.recipe)) for _ in range(2)]
    for process in both:
        output, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
        assert "evaluate base                            cached" in errors
        assert "tiny version 1 is champion" in output
        assert "Traceback" not in errors
    wait_until_gone(world, 10)


def test_dashboards_start_and_leave_nothing_behind(world: World, start: Start) -> None:
    process = start("ui", "--port", "0")
    assert process.stdout is not None
    addresses = [line.split()[1] for line in (process.stdout.readline(), process.stdout.readline())]
    assert len(processes_of(world)) >= 3
    for address in addresses:
        request = urllib.request.Request(address.partition("#")[0], headers={"Accept": "text/html"})
        with urllib.request.urlopen(request, timeout=10) as page:
            assert b"<html" in page.read(4096).lower()
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0
    wait_until_gone(world, 10)


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
def test_the_dashboards_show_the_run_and_the_champion_in_a_browser(world: World, start: Start, tmp_path: Path) -> None:
    assert start("run", str(world.recipe)).wait(120) == 0
    process = start("ui", "--port", "0")
    assert process.stdout is not None
    addresses = [urllib.parse.urlsplit(process.stdout.readline().split()[1]) for _ in range(2)]
    prefect, mlflow = (f"{address.scheme}://{address.netloc}" for address in addresses)
    runs = shown(f"{prefect}/runs", tmp_path)
    assert "merge-and-evaluate" in runs and "Completed" in runs
    assert "tiny-leaderboard" in shown(f"{prefect}/artifacts", tmp_path)
    assert "champion" in shown(f"{mlflow}/#/models/tiny", tmp_path)


def shown(url: str, profile: Path) -> str:
    """Return the page as a browser has it once its scripts have run."""
    quiet = ["--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"]
    command = [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", *quiet, f"--user-data-dir={profile}"]
    page = subprocess.run(
        [*command, "--virtual-time-budget=20000", "--dump-dom", url], capture_output=True, text=True, timeout=60
    )
    return page.stdout
