"""Standing by servers until the user ends them, or one of them dies."""

import signal
import threading
from collections.abc import Sequence

from rammerge.cli.terminal import say
from rammerge.errors import RammergeError
from rammerge.system.interrupts import end_normally
from rammerge.system.servers import Server

_WATCH_SECONDS = 1.0


def ended_by_user() -> threading.Event:
    """Return an event that Ctrl-C and SIGTERM set from now on, which is then the normal end of the program."""
    end_normally()
    ended = threading.Event()
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, lambda *_: ended.set())
    return ended


def attend(servers: Sequence[Server], ended: threading.Event) -> None:
    """Wait until `ended` is set.

    Raises:
        RammergeError: a server died; the message names its log.
    """
    try:
        while not ended.wait(_WATCH_SECONDS):
            for server in servers:
                if server.process.poll() is not None:
                    raise RammergeError(f"{server.name} stopped (code {server.process.returncode}); see {server.log}")
    finally:
        say("stopping ...")
