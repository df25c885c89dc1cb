"""Contract: models in processes of their own score as in this one, and the processes end when they should."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from evaluation.runners import worker
from evaluation.runners.harness import evaluate_model
from evaluation.runners.pool import Pool
from evaluation.suites import Suite, load_suite
from rammerge.errors import InputError, RammergeError
from tests.evaluation.made import write_model, write_suite
from tests.fixtures.waiting import wait_until

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    pool = Pool()
    pool.warm_up()
    yield pool
    pool.close()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    return write_suite(tmp_path / "words")


def question(model: Path, suite: Suite, out: Path) -> dict[str, Any]:
    loaded = {"model_dir": str(model), "dtype": "float32", "batch_size": 8, "device": "cpu", "model_digest": "d1"}
    opened = {"suite": str(suite.path), "suite_digest": suite.digest}
    return {"model": loaded, **opened, "limit": None, "out": str(out)}


@pytest.mark.parametrize("kind", ["generate", "world"])
def test_scores_and_samples_are_those_of_this_process(pool: Pool, model: Path, tmp_path: Path, kind: str) -> None:
    opened = load_suite(write_suite(tmp_path / "words", kind=kind))
    here, there = tmp_path / "here", tmp_path / "there"
    evaluate_model(model, [opened], batch_size=8, out=here, model_digest="d1")
    with pool.worker() as worker:
        worker.ask("evaluate", **question(model, opened, there))
        text, finite = worker.ask("try_out", model_dir=str(model), device="cpu")
    assert finite
    assert isinstance(text, str)
    for split in ("validation", "test"):
        ours, theirs = (json.loads((folder / "words" / f"{split}.json").read_text()) for folder in (here, there))
        of_the_process = {"seconds": 0, "peak_memory": 0}
        assert ours | of_the_process == theirs | of_the_process
        assert (here / "words" / f"{split}.jsonl").read_bytes() == (there / "words" / f"{split}.jsonl").read_bytes()


def test_a_process_that_is_kept_serves_one_purpose(pool: Pool) -> None:
    with pool.worker() as model, pool.worker(purpose="calls") as caller:
        assert caller is not model
    for _ in range(2):
        with pool.worker(purpose="calls") as again:
            assert again is caller
        with pool.worker() as again:
            assert again is model


def test_an_error_keeps_its_kind_and_its_sentence(pool: Pool, model: Path, suite: Path, tmp_path: Path) -> None:
    scoring = suite / "scoring.py"
    scoring.write_text("def process_results(doc, results):\n    return {'acc': 2.0}\n")
    with pytest.raises(InputError, match=r"gave an item the acc 2.0"), pool.worker() as worker:
        worker.ask("evaluate", **question(model, load_suite(suite), tmp_path / "out"))
    scoring.write_text("def process_results(doc, results):\n    raise KeyError('gold')\n")
    with pytest.raises(RammergeError, match=r"cannot be evaluated: KeyError") as refused, pool.worker() as w:
        w.ask("evaluate", **question(model, load_suite(suite), tmp_path / "out"))
    assert type(refused.value) is RammergeError
    with pytest.raises(RuntimeError, match="TypeError"), pool.worker() as worker:
        worker.ask("try_out", model_dir=str(model))


def test_a_suite_that_was_changed_meanwhile_is_not_scored(pool: Pool, model: Path, suite: Path, tmp_path: Path) -> None:
    opened = load_suite(suite)
    (suite / "notes.txt").write_text("changed")
    with pytest.raises(InputError, match="was changed while the run was using it"), pool.worker() as worker:
        worker.ask("evaluate", **question(model, opened, tmp_path / "out"))


def test_a_killed_process_is_one_sentence_and_does_not_stop_the_next(
    pool: Pool, model: Path, suite: Path, tmp_path: Path
) -> None:
    (suite / "scoring.py").write_text(
        "import os, signal\ndef process_results(doc, results):\n    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    with pytest.raises(RammergeError, match="the process that ran the model has ended"), pool.worker() as w:
        w.ask("evaluate", **question(model, load_suite(suite), tmp_path / "out"))
    with pool.worker() as worker:
        assert worker.ask("try_out", model_dir=str(model), device="cpu")


def test_a_process_serves_the_next_caller_unless_it_is_not_to_be_kept(pool: Pool) -> None:
    with pool.worker() as first, pool.worker() as second:
        assert first is not second
    with pool.worker(keep=False) as third:
        assert third in (first, second)
    with pool.worker() as fourth:
        assert fourth is not third


def test_closing_ends_what_runs_at_once(pool: Pool, model: Path, suite: Path, tmp_path: Path) -> None:
    started = tmp_path / "started"
    (suite / "scoring.py").write_text(
        f"import pathlib, time\ndef process_results(doc, results):\n"
        f"    pathlib.Path({str(started)!r}).touch()\n    time.sleep(10000)\n"
    )
    failures: list[str] = []

    def ask() -> None:
        with pytest.raises(RammergeError) as failed, pool.worker() as worker:
            worker.ask("evaluate", **question(model, load_suite(suite), tmp_path / "out"))
        failures.append(str(failed.value))

    thread = threading.Thread(target=ask)
    thread.start()
    wait_until(started.exists, "the first item to be scored")
    pool.close()
    thread.join()
    assert "the process that ran the model has ended" in failures[0]
    with pool.worker() as worker:  # an interrupted session may go on
        assert worker.ask("try_out", model_dir=str(model), device="cpu")


PARENT = """
import sys
from evaluation.runners.pool import Pool
from evaluation.suites import load_suite
pool = Pool()
with pool.worker() as worker:
    suite = load_suite(sys.argv[2])
    loaded = {"model_dir": sys.argv[1], "dtype": "float32", "batch_size": 8, "device": "cpu", "model_digest": "d"}
    worker.ask("evaluate", model=loaded, suite=str(suite.path), suite_digest=suite.digest, limit=1, out=sys.argv[3])
"""


def test_an_answer_that_nobody_waits_for_is_dropped_in_silence(capfd: pytest.CaptureFixture[str]) -> None:
    ours, theirs = socket.socketpair()
    ours.sendall(b'{"do": "see", "seconds": 600}\n')
    ours.close()
    parent = os.getpid()
    if (pid := os.fork()) == 0:
        worker._serve(theirs, parent)
    theirs.close()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 1
    assert capfd.readouterr() == ("", "")


def test_a_killed_parent_leaves_no_process(model: Path, suite: Path, tmp_path: Path) -> None:
    noted = tmp_path / "pids"
    (suite / "scoring.py").write_text(
        "import os, pathlib, re, time\ndef process_results(doc, results):\n"
        f"    pathlib.Path({str(noted)!r}).write_text(f'{{os.getppid()}} {{os.getpid()}}\\n')\n"
        # A regular expression that never ends, with the interpreter's lock held: no thread of this process can run.
        "    re.match('(a*)*b', 'a' * 64)\n"
    )
    command = [sys.executable, "-c", PARENT, str(model), str(suite), str(tmp_path / "out")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(command, env=environment) as parent:
        wait_until(lambda: noted.exists() and noted.read_text().endswith("\n"), "the first item to be scored")
        parent.send_signal(signal.SIGKILL)
    pids = [int(pid) for pid in noted.read_text().split()]
    assert len(pids) == 2
    wait_until(lambda: not any(_runs(pid) for pid in pids), "the processes to end")


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_what_takes_too_long_is_ended_and_the_next_model_runs(
    pool: Pool, model: Path, suite: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scoring that sleeps for ever would otherwise hang a run, and the next one would wait for it."""
    (suite / "scoring.py").write_text("import time\ndef process_results(doc, results):\n    time.sleep(100_000)\n")
    with monkeypatch.context() as patch:
        patch.setattr(pool, "limit", 1.0)  # of processes that are forked now
        with (
            pytest.raises(RammergeError, match=r"took longer than 0:00:01 and was ended"),
            pool.worker(purpose="hangs") as worker,
        ):
            worker.ask("evaluate", **question(model, load_suite(suite), tmp_path / "out"))
    with pool.worker(purpose="hangs") as worker:
        assert worker.ask("try_out", model_dir=str(model), device="cpu")[1]
