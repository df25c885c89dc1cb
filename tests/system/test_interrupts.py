"""Contract: a signal ends the program soon, with one line and its own exit code, whatever its threads wait for."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fixtures.waiting import PATIENCE_SECONDS

LINE = "interrupted; run the same command again to continue: what was finished is kept\n"
PROGRAM = """if True:
    import ctypes, os, sys, threading
    from pathlib import Path
    from rammerge.system.interrupts import (
        end_normally, ended_by_signals, hearing, interrupted, removed_afterwards, say_interrupted
    )

    scratch = Path(sys.argv[1])
    scratch.mkdir()

    def ready():
        print("ready", flush=True)

    def work():
        {work}

    with ended_by_signals(), removed_afterwards(scratch):
        try:
            work()
        except KeyboardInterrupt:
            say_interrupted()
        sys.exit(say_interrupted() if interrupted() else 0)
"""
WAITS = {
    "the main thread": "ready(); threading.Event().wait()",
    "another thread": "threading.Thread(target=threading.Event().wait).start(); ready(); threading.Event().wait()",
    # Locking a mutex of the C library twice waits forever, and no signal ends the wait.
    "the C library": (
        "mutex, lock = ctypes.create_string_buffer(64), ctypes.CDLL(None).pthread_mutex_lock; ready(); lock(mutex); "
        "lock(mutex)"
    ),
}


def end(work: str, signum: int, scratch: Path) -> tuple[int, str, str]:
    """Send `signum` to a program that does `work`; return its exit code, its output and its errors."""
    command = [sys.executable, "-c", PROGRAM.format(work=work), str(scratch)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    process.send_signal(signum)
    output, errors = process.communicate(timeout=PATIENCE_SECONDS)
    return process.returncode, output, errors


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("who", WAITS)
def test_a_signal_ends_whatever_waits(who: str, signum: int, tmp_path: Path) -> None:
    assert end(WAITS[who], signum, tmp_path / "scratch") == (128 + signum, "", LINE)
    assert not (tmp_path / "scratch").exists()


def test_a_signal_is_not_lost_in_a_finalizer(tmp_path: Path) -> None:
    work = "type('Each', (), {'__del__': lambda _: (ready(), threading.Event().wait())})(); threading.Event().wait()"
    assert end(work, signal.SIGTERM, tmp_path / "scratch") == (143, "", LINE)


def test_a_server_ends_normally(tmp_path: Path) -> None:
    work = f"end_normally(); {WAITS['the main thread']}"
    assert end(work, signal.SIGTERM, tmp_path / "scratch") == (0, "", "")


def test_whoever_listens_hears_of_the_signal_though_the_main_thread_does_not(tmp_path: Path) -> None:
    # One write each: two threads may say it at the same time.
    work = f"with hearing(lambda: os.write(1, b'heard\\n')): {WAITS['the C library']}"
    code, heard, errors = end(work, signal.SIGINT, tmp_path / "scratch")
    assert (code, errors) == (130, LINE)
    assert set(heard.split()) == {"heard"}  # twice where the signal came before the wait
