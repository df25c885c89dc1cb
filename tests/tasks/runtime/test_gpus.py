"""Contract of GPUs: processes of one machine share them by locks of the kernel, which end with whoever holds them."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tasks.runtime import gpus as module
from tasks.runtime.gpus import Gpus

HOLD = """
import sys
from tasks.runtime.gpus import Gpus
gpus = Gpus()
print(gpus.take(["0"]), flush=True)
sys.stdin.read()
"""


@contextmanager
def holding(seen: str) -> Iterator["subprocess.Popen[str]"]:
    """Yield a process that holds the first of the GPUs that it sees."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": seen},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None and process.stdout.readline() == "0\n"
        try:
            yield process
        finally:
            process.kill()


def test_two_processes_share_gpus_and_a_killed_one_frees_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    gpus = Gpus()
    with holding("3,4") as other:  # whose first is the second one here
        assert gpus.take(["1"], timeout=0) is None
        assert gpus.take(["0", "1"], timeout=0) == "0"
        other.kill()
        other.wait()
        assert gpus.take(["1"]) == "1"
    gpus.give_back("0")
    gpus.give_back("1")


def test_a_process_that_waits_has_the_gpu_once_another_one_gives_it_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-5f/1")
    gpus = Gpus()
    assert gpus.take(["0"]) == "0"
    waiting = subprocess.Popen(
        [sys.executable, "-c", HOLD], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
    )
    gpus.give_back("0")
    assert waiting.communicate()[0] == "0\n"


def test_whoever_cannot_lock_a_gpu_leaves_it_to_the_next(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    gpus = Gpus()
    with monkeypatch.context() as patched:
        patched.setattr(module, "_MACHINE", tmp_path / "missing")
        with pytest.raises(FileNotFoundError):
            gpus.take(["0"])
    assert gpus.waiting == 0 and gpus.take(["0"], timeout=0) == "0"
    gpus.give_back("0")
