"""Contract: a signal, or `kill -9`, ends a command at any moment and leaves no process behind.

Running the same command again, even twice at once, finishes and redoes at most what was being done.
"""

import signal
import time
import urllib.request
from functools import partial
from pathlib import Path

import pytest

from tasks.records.connection import client
from tasks.records.trend import EXPERIMENT
from tests.fixtures.pipeline import World
from tests.fixtures.program import Start, dashboards, finish, processes_of, wait_until_gone
from tests.fixtures.waiting import PATIENCE_SECONDS, wait_until

pytestmark = pytest.mark.long


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World(tmp_path)
    world.write(merges=["ram"])  # one variant: the fewest steps that there can be
    return world


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
    wait_until_gone(world)

    # Twice at once: they share the work, and register and promote one version.
    both = [start("run", str(world.recipe)) for _ in range(2)]
    for process in both:
        output, errors = finish(process)
        assert "evaluate base                            cached" in errors
        assert "tiny version 1 is champion" in output
    wait_until_gone(world)


def test_a_signal_waits_for_no_model(world: World, start: Start, tmp_path: Path) -> None:
    scored = tmp_path / "scored"
    # Scoring that never ends: whoever waits for it hangs.
    (tmp_path / "words" / "scoring.py").write_text(
        "import pathlib, time\ndef process_results(doc, results):\n"
        f"    pathlib.Path({str(scored)!r}).touch()\n    time.sleep(100_000)\n"
    )
    for signum in (signal.SIGINT, signal.SIGTERM):
        process = start("run", str(world.recipe))
        wait_until(scored.exists, "the first item to be scored")
        process.send_signal(signum)
        _, errors = process.communicate(timeout=PATIENCE_SECONDS)
        assert process.returncode == 128 + signum, errors
        *steps, line = errors.splitlines()
        assert line == "interrupted; run the same command again to continue: what was finished is kept"
        assert not [step for step in steps[1:] if not step.endswith("cached") and " done " not in step], errors
        wait_until_gone(world)
        scored.unlink()


def is_past(milliseconds: int) -> bool:
    return time.time() * 1000 >= milliseconds + 1


def record(world: World) -> None:
    """Leave in MLflow what the pages of a run are found by: its experiment, that of trends, and its model."""
    with pytest.MonkeyPatch.context() as patch:
        world.enter(patch)
        mlflow = client()
        for name in ("tiny", EXPERIMENT):
            made = mlflow.get_experiment(mlflow.create_experiment(name))
            # What was written to last comes first, by a clock of milliseconds.
            wait_until(partial(is_past, made.last_update_time), "the clock to tick")
        mlflow.create_registered_model("tiny")


def test_dashboards_start_and_leave_nothing_behind(world: World, start: Start) -> None:
    record(world)
    process = start("ui", "--port", "0")
    addresses = dashboards(process)
    assert [address.partition("/#/")[2] for address in addresses[1:]] == [
        "experiments/2/runs?workflowType=machine_learning",  # of trends, which were written to last
        "experiments/1/runs?workflowType=machine_learning",
        "models/tiny?workflowType=machine_learning",
    ]
    assert len(processes_of(world)) >= 3
    for address in addresses:
        request = urllib.request.Request(address.partition("#")[0], headers={"Accept": "text/html"})
        with urllib.request.urlopen(request, timeout=PATIENCE_SECONDS) as page:
            assert b"<html" in page.read(4096).lower()
    process.send_signal(signal.SIGTERM)
    assert process.wait(PATIENCE_SECONDS) == 0
    wait_until_gone(world)
