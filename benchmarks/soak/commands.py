"""Commands of rammerge, each in a process of its own, forked from one that has imported what takes long to import."""

import multiprocessing
import os
import socket
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import forkserver, resource_tracker
from pathlib import Path
from typing import Any

from evaluation.runners import pool

_CLEAN = multiprocessing.get_context("forkserver")
_PRELOADED = "benchmarks.soak.preloaded"
_LONGEST_MESSAGE = 1 << 20


class Command:
    """A command of rammerge in a process of its own, forked from one that has imported what commands need."""

    def __init__(
        self,
        arguments: Sequence[str],
        log: Path,
        *,
        environment: Mapping[str, str] | None = None,
        before: Callable[[], object] | None = None,
    ) -> None:
        """Start it.

        Args:
            arguments: the words after `rammerge`.
            log: what it prints is appended to this file.
            environment: its variables; by default those of the process that it is forked from.
            before: a function that can be pickled, to call in the process first.
        """
        self.log = log
        self._process = _CLEAN.Process(target=_command, args=(list(arguments), log, environment, before))
        self._process.start()

    def ended(self, seconds: float | None = None) -> bool:
        """Wait until it ends, or for some seconds; return whether it has ended."""
        self._process.join(seconds)
        return self._process.exitcode is not None

    def send(self, signum: int) -> None:
        """Send it a signal."""
        with suppress(ProcessLookupError):
            os.kill(self._process.pid or 0, signum)

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid or 0

    @property
    def code(self) -> int:
        """Its exit code; negative for a signal."""
        code = self._process.exitcode
        assert code is not None
        return code

    @property
    def said(self) -> str:
        """What it printed."""
        return self.log.read_text("utf-8", errors="replace") if self.log.exists() else ""


def start_forking(preloaded: str = _PRELOADED) -> None:
    """Start the process that commands are forked from, which takes the environment as it is now.

    Args:
        preloaded: the module that imports what commands need.
    """
    _CLEAN.set_forkserver_preload([preloaded, __name__])
    resource_tracker.ensure_running()
    forkserver.ensure_running()


def _command(
    arguments: list[str], log: Path, environment: Mapping[str, str] | None, before: Callable[[], object] | None
) -> None:
    """Run a command; what it and its children print is appended to `log`."""
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(output, stream)
    if environment is not None:
        take(environment)
    if before is not None:
        before()
    from flows.cli.program import main

    pool._start = _Forker(pool._start)
    sys.argv = ["rammerge", *arguments]
    main()


def take(environment: Mapping[str, str]) -> None:
    """Have the variables of a process that was started with `environment`, and Prefect's settings by them."""
    os.environ.clear()
    os.environ.update(environment)
    from prefect.context import refresh_global_settings_context

    with warnings.catch_warnings(action="ignore"):  # that there is no home yet
        refresh_global_settings_context()


class Spare:
    """A process that was forked at once, before there were threads, whose locks a fork would inherit.

    It waits for the one thing that it is to do. If it is never told, it ends with the process that forked it.
    """

    def __init__(self, work: Callable[[bytes, int], object]) -> None:
        """Fork it. `work` is what it does with the message and the open file that it is given."""
        self._control, theirs = socket.socketpair()
        self._pid: int | None = os.fork()
        if self._pid == 0:
            os.setsid()
            self._control.close()
            message, given, _, _ = socket.recv_fds(theirs, _LONGEST_MESSAGE, 1)
            if given:  # otherwise the command has ended
                work(message, given[0])
            os._exit(0)
        theirs.close()

    def begin(self, message: bytes, file: int) -> "Forked | None":
        """Have it begin, and return it; None if it had begun already."""
        if self._pid is None:
            return None
        pid, self._pid = self._pid, None
        socket.send_fds(self._control, [message], [file])
        return Forked(pid)


class _Forker:
    """Starts the first process that runs models by a fork, which has imported what that takes seconds to import."""

    def __init__(self, start: Callable[[socket.socket], Any]) -> None:
        self._start, command = start, os.getpid()

        def run_models(_: bytes, connection: int) -> None:
            from evaluation.runners.worker import main

            main(command, connection)

        self._spare = Spare(run_models)

    def __call__(self, connection: socket.socket) -> Any:
        """Start a process that answers at the other end of `connection`."""
        return self._spare.begin(b"\0", connection.fileno()) or self._start(connection)


@dataclass
class Forked:
    """A child that was forked, as `subprocess.Popen` shows one."""

    pid: int
    returncode: int | None = None

    def poll(self) -> int | None:
        """Return how it ended, or None if it has not."""
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode

    def wait(self, seconds: float | None = None) -> int:
        """Return how it ended, once it has.

        Raises:
            subprocess.TimeoutExpired: it has not in these seconds.
        """
        deadline = None if seconds is None else time.monotonic() + seconds
        while (code := self.poll()) is None:
            if deadline is not None and time.monotonic() > deadline:
                raise subprocess.TimeoutExpired("a fork", seconds or 0.0)
            time.sleep(0.005)
        return code
