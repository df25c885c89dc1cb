"""Servers as child processes: started, waited for, stopped with their children."""

import contextlib
import fcntl
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import SystemRandom
from typing import BinaryIO

from rammerge.errors import RammergeError
from rammerge.system import libc

LOOPBACK = "127.0.0.1"
START_SECONDS = 120.0
STOP_SECONDS = 10.0
_OF_NO_CONNECTION = range(20_000, 32_768)


@dataclass(frozen=True)
class Server:
    """A running child process.

    Attributes:
        name: for messages.
        url: address without a trailing slash.
        health: path that answers 200 when the server is ready.
        log: file with its output.
        process: the leader of a new process group.
        starting: lock that is held until the server answers, because two servers cannot create one database at once.
        start_seconds: how long it may take to answer.
    """

    name: str
    url: str
    health: str
    log: Path
    process: subprocess.Popen[bytes]
    starting: BinaryIO
    start_seconds: float = START_SECONDS

    def wait_until_healthy(self, ended: threading.Event | None = None) -> None:
        """Wait until the server answers or `ended` is set; RammergeError names the log if it dies or is too slow."""
        deadline = time.monotonic() + self.start_seconds
        while not answers(self.url + self.health) and not (ended and ended.is_set()):
            if self.process.poll() is not None:
                raise RammergeError(
                    f"{self.name} stopped while starting (code {self.process.returncode}); see {self.log}"
                )
            if time.monotonic() > deadline:
                raise RammergeError(f"{self.name} did not answer within {self.start_seconds:.0f} s; see {self.log}")
            time.sleep(0.03)
        self.starting.close()

    def stop(self) -> None:
        """End the whole process group: first by SIGTERM, after STOP_SECONDS by SIGKILL."""
        self.starting.close()
        for signum, seconds in ((signal.SIGTERM, STOP_SECONDS), (signal.SIGKILL, STOP_SECONDS)):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, signum)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(seconds)
            if _group_ended(self.process.pid, seconds):
                return


@contextmanager
def running(
    name: str,
    command: Sequence[str],
    *,
    url: str,
    health: str,
    log: Path,
    settings: Mapping[str, str],
    prepare: Callable[[], None] = lambda: None,
    start_seconds: float = START_SECONDS,
) -> Iterator[Server]:
    """Run a server while the context lasts; `Server.wait_until_healthy` waits for its first answer.

    Args:
        name: for messages.
        command: program and arguments.
        url: where it answers, without a trailing slash.
        health: path that answers 200 when the server is ready.
        log: file for its output, which is appended; two servers with one log start one after the other.
        settings: environment variables beside those of this process.
        prepare: called before the start, when no other server with this log is starting.
        start_seconds: how long it may take to answer.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.with_suffix(".lock").open("ab") as starting:
        fcntl.flock(starting, fcntl.LOCK_EX)
        prepare()
        server = Server(name, url, health, log, _start(command, log, settings), starting, start_seconds)
        try:
            yield server
        finally:
            server.stop()


def _start(command: Sequence[str], log: Path, settings: Mapping[str, str]) -> subprocess.Popen[bytes]:
    with log.open("ab") as output:
        return subprocess.Popen(
            command,
            env={**os.environ, **settings},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            preexec_fn=end_with_parent if sys.platform == "linux" else None,
        )


def address_of(host: str, port: int) -> str:
    """Return where this machine reaches a server that listens on `port` of the interface `host`."""
    if host in ("0.0.0.0", "::"):  # all interfaces
        host = LOOPBACK
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def free_port(wanted: int = 0) -> int:
    """Return `wanted` if nothing listens there, else a free port of loopback.

    Ports that Linux by default gives to outgoing connections are left out. One of them could be taken before a server
    that starts slowly listens there.
    """
    for port in ([wanted] if wanted else []) + SystemRandom().sample(_OF_NO_CONNECTION, 100) + [0]:
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((LOOPBACK, port))
            return int(probe.getsockname()[1])
    raise RammergeError("no free port on loopback")


def answers(url: str) -> bool:
    """Tell whether a GET of `url` succeeds now."""
    try:
        with urllib.request.urlopen(url, timeout=2) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError, ValueError):
        return False


def end_with_parent() -> None:
    """Have the kernel send SIGTERM to this process when its parent dies, even by SIGKILL. For `preexec_fn`."""
    libc.end_with_parent(signal.SIGTERM)


def _group_ended(group: int, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False
