"""Contract: a clock that is set back costs reading files again. Nothing in use is pruned, and no record ends early."""

import os
import time
from pathlib import Path

import pytest

from rammerge import store
from rammerge.checkpoints import digest
from rammerge.store import entries
from tasks.records.connection import client
from tasks.records.log import Log

DAY = 86_400


@pytest.fixture
def set_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set the clock of this process back by 40 days; files that are written have the times of the machine."""
    now, now_ns = time.time, time.time_ns
    monkeypatch.setattr(time, "time", lambda: now() - 40 * DAY)
    monkeypatch.setattr(time, "time_ns", lambda: now_ns() - 40 * DAY * 10**9)


def write(directory: Path) -> None:
    (directory / "weights").touch()


@pytest.mark.usefixtures("set_back")
def test_nothing_that_was_used_is_pruned() -> None:
    for name, days in (("used", 0), ("unused", 80)):
        entry = store.materialise("merge", name, write)
        at = time.time() - days * DAY
        os.utime(entry.path / ".manifest", (at, at) if days else None)
    entries.hold.cache_clear()
    store.prune(unused_days=30)
    assert [path.name for path in entries.root().glob("merge/[!.]*")] == ["used"]


@pytest.mark.usefixtures("set_back")
def test_a_file_of_the_future_is_read_again(tmp_path: Path) -> None:
    file = tmp_path / "weights"
    file.write_bytes(b"one")
    first = digest.digest_file(file).sha256
    status = file.stat()
    file.write_bytes(b"two")
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert digest.digest_file(file).sha256 != first


def test_a_record_does_not_end_before_it_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'runs.db'}")
    log = Log(client(), tags={}, params={}, inputs=[], started=time.time())
    log.open("tiny", key="k")
    run = log.run("tiny", tags={}, params={}, metrics={}, files=[])
    log.finish(run, log.started - DAY)
    info = client().get_run(run).info
    assert info.end_time >= info.start_time
