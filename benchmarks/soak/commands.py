"""Commands of rammerge, each in a process of its own, forked from one that has imported what takes long to import."""

import multiprocessing
import os
import socket
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import forkserver, resource_tracker
from pathlib import Path
from typing import Any

from evaluation.runners import pool

_CLEAN = multiprocessing.get_context("forkserver")
_CLEAN.set_forkserver_preload(["benchmarks.soak.preloaded", __name__])


class Command:
    """A command of rammerge in a process of its own, forked from one that has imported what commands need."""

    def __init__(self, arguments: Sequence[str], log: Path) -> None:
        """Start it; what it prints goes to `log`."""
        self.log = log
        self._process = _CLEAN.Process(target=_command, args=(list(arguments), log))
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


def start_forking() -> None:
    """Start the process that commands are forked from, which takes the environment as it is now."""
    resource_tracker.ensure_running()
    forkserver.ensure_running()


def _command(arguments: list[str], log: Path) -> None:
    """Run a command; what it and its children print is appended to `log`."""
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(output, stream)
    from flows.cli.program import main

    pool._start = _Forker(pool._start)
    sys.argv = ["rammerge", *arguments]
    main()


class _Forker:
    """Starts the first process that runs models by a fork, which has imported what that takes seconds to import.

    It forks at once, before there are threads, whose locks a fork would inherit.
    """

    def __init__(self, start: Callable[[socket.socket], Any]) -> None:
        self._start = start
        self._control, theirs = socket.socketpair()
        run = os.getpid()
        self._pid: int | None = os.fork()
        if self._pid == 0:
            os.setsid()
            self._control.close()
            _, given, _, _ = socket.recv_fds(theirs, 1, 1)
            if given:  # otherwise the run has ended
                from evaluation.runners.worker import main

                main(run, given[0])
            os._exit(0)
        theirs.close()

    def __call__(self, connection: socket.socket) -> Any:
        """Start a process that answers at the other end of `connection`."""
        if self._pid is None:
            return self._start(connection)
        pid, self._pid = self._pid, None
        socket.send_fds(self._control, [b"\0"], [connection.fileno()])
        return _Forked(pid)


@dataclass
class _Forked:
    """A child that was forked, as `subprocess.Popen` shows one."""

    pid: int
    ended: bool = False

    def poll(self) -> int | None:
        """Return 0 if it has ended, else None."""
        self.ended = self.ended or os.waitpid(self.pid, os.WNOHANG) != (0, 0)
        return 0 if self.ended else None

    def wait(self) -> None:
        """Wait for its end."""
        if not self.ended:
            os.waitpid(self.pid, 0)
            self.ended = True
