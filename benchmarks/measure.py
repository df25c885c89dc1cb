"""Measure whole processes: seconds, peak resident memory and output, as medians of several runs."""

import os
import shutil
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Measurement:
    """Median wall and processor seconds, largest peak resident bytes, and the last run's standard output."""

    seconds: float
    cpu_seconds: float
    peak: int
    output: str


def run(
    command: Sequence[str], environment: Mapping[str, str] | None = None, *, limit: float | None = None
) -> Measurement:
    """Run a command once.

    Raises:
        TimeoutError: it took more than `limit` seconds, and was killed.
        RuntimeError: the command failed; the message ends with its last lines of output.
    """
    with tempfile.TemporaryFile() as output:
        started = time.perf_counter()
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment)
        timer = threading.Timer(limit or 0.0, process.kill)
        if limit is not None:
            timer.start()
        _, status, usage = os.wait4(process.pid, 0)
        timer.cancel()
        seconds = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        text = output.read().decode(errors="replace")
    if limit is not None and seconds >= limit:
        raise TimeoutError(f"{' '.join(command[:6])} ... took more than {limit:.0f} s")
    if process.returncode != 0:
        raise RuntimeError(f"{' '.join(command[:6])} ... ended with {process.returncode}:\n{text[-2000:]}")
    return Measurement(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024, text)


def median(runs: Sequence[Measurement]) -> Measurement:
    """Return the medians of several runs of one command."""
    return Measurement(
        statistics.median(one.seconds for one in runs),
        statistics.median(one.cpu_seconds for one in runs),
        max(one.peak for one in runs),
        runs[-1].output,
    )


def repeat(
    command: Callable[[Path], Sequence[str]], runs: int, scratch: Path, *, cold: bool, limit: float | None = None
) -> list[Measurement]:
    """Run `command(out)` several times with a fresh `out`. With `cold`, drop the page cache before each run."""
    measured = []
    for _ in range(runs):
        out = scratch / "out"
        shutil.rmtree(out, ignore_errors=True)
        os.sync()
        if cold:
            Path("/proc/sys/vm/drop_caches").write_text("3\n")
        measured.append(run(command(out), limit=limit))
    shutil.rmtree(scratch / "out", ignore_errors=True)
    return measured
