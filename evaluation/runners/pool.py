"""Processes that run models for this one.

They are forked from a template process (evaluation.runners.worker), which has imported lm-eval and torch. The template
starts when it is first needed, or earlier by `warm_up`. It ends when nothing has needed it for a while, on `close`, and
with this process, however that ends.
"""

import atexit
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from itertools import chain
from pathlib import Path
from typing import Any

from rammerge.errors import InputError, RammergeError

_IDLE_SECONDS = 30.0
_DAY = 86_400.0
# If a process does not even end itself in time.
_GRACE_SECONDS = 30.0
_STDERR = 2
_ERRORS = {"InputError": InputError, "RammergeError": RammergeError}


class Worker:
    """This process's end of the connection to one that runs models."""

    def __init__(self, connection: socket.socket, limit: float) -> None:
        """Take over the connection. `ended` says whether the process was found to have ended.

        Args:
            connection: to the process.
            limit: seconds that an answer may take. Then the process ends itself.
        """
        self._connection, self._limit = connection, limit
        connection.settimeout(limit + _GRACE_SECONDS)
        self.ended = False
        self._answers = connection.makefile("rb")

    def ask(self, what: str, **arguments: Any) -> Any:
        """Have the process do `what` (see evaluation.runners.worker), and return its result.

        Raises:
            RammergeError: what the process raised, or that it ended or was ended.
        """
        began = time.monotonic()
        try:
            request = {"do": what, "seconds": self._limit, **arguments}
            self._connection.sendall(json.dumps(request).encode() + b"\n")
            line = self._answers.readline()
        except OSError:
            line = b""
        if not line:
            self.ended = True
            if time.monotonic() - began >= self._limit:
                raise RammergeError(
                    f"the model, or the suite's code, took longer than {timedelta(seconds=self._limit)} and was ended; "
                    "correct what hangs, or raise compute.timeout in the recipe"
                )
            raise RammergeError(
                "the process that ran the model has ended; if memory ran out, lower evaluation.batch_size"
            )
        answer = json.loads(line)
        if "error" in answer:
            raise _ERRORS.get(answer["error"], RuntimeError)(answer["message"])
        return answer["result"]

    def close(self) -> None:
        """End the process once it is idle."""
        self._answers.close()
        self._connection.close()


class Pool:
    """The processes. Each is used by one caller at a time."""

    def __init__(self, limit: float = _DAY) -> None:
        """Start nothing yet. `limit` is how many seconds an answer may take."""
        self.limit = limit
        self._lock = threading.Lock()
        self._template: _Template | None = None
        self._idle: defaultdict[str, list[Worker]] = defaultdict(list)
        self._used = 0
        self._timer: threading.Timer | None = None
        atexit.register(self.close)

    def warm_up(self) -> None:
        """Start to import what models need, and return at once."""
        with self._lock:
            self._ready()
            self._end_later()

    @contextmanager
    def worker(self, *, keep: bool = True, purpose: str = "models") -> Iterator[Worker]:
        """Yield a process that nobody else uses at the same time.

        With `keep` it may serve the next caller with this purpose, who finds there what this one loaded and imported.
        Without, it ends, and the memory of its model is free again.
        """
        with self._lock:
            template = self._ready()
            idle = self._idle[purpose]
            worker = idle.pop() if idle else Worker(template.fork(), self.limit)
            self._used += 1
        try:
            yield worker
        except InputError:  # an answer like any other
            raise
        except BaseException:
            keep = False
            raise
        finally:
            with self._lock:
                self._used -= 1
                if keep and not worker.ended and self._template is template:
                    self._idle[purpose].append(worker)
                else:
                    worker.close()
                self._end_later()

    def close(self) -> None:
        """End all processes at once. Whoever uses one gets a RammergeError; the next caller starts new ones."""
        with self._lock:
            self._stop()

    def _ready(self) -> "_Template":
        self._cancel_end()
        if self._template is None or self._template.ended():
            self._stop()
            self._template = _Template()
        return self._template

    def _end_later(self) -> None:
        self._cancel_end()
        self._timer = threading.Timer(_IDLE_SECONDS, self._end_if_idle)
        self._timer.daemon = True
        self._timer.start()

    def _cancel_end(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _end_if_idle(self) -> None:
        with self._lock:
            if self._used == 0:
                self._stop()

    def _stop(self) -> None:
        self._cancel_end()
        for worker in chain.from_iterable(self._idle.values()):
            worker.close()
        self._idle.clear()
        if self._template is not None:
            self._template.stop()
            self._template = None


class _Template:
    """The process that the workers are forked from."""

    def __init__(self) -> None:
        self._control, theirs = socket.socketpair()
        with theirs:
            self._process = _start(theirs)

    def ended(self) -> bool:
        return self._process.poll() is not None

    def fork(self) -> socket.socket:
        """Return the connection to a new process."""
        ours, theirs = socket.socketpair()
        with theirs, suppress(OSError):  # of a process that just ended; whoever asks the worker learns it
            socket.send_fds(self._control, [b"\0"], [theirs.fileno()])
        return ours

    def stop(self) -> None:
        """Kill the process and its forks, which have nothing to finish: the store keeps only what is complete."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._control.close()


def _start(connection: socket.socket) -> subprocess.Popen[bytes]:
    """Start the template process in a session of its own, which a Ctrl-C in the terminal does not reach."""
    started: list[subprocess.Popen[bytes]] = []
    ready = threading.Event()
    settings = {
        "PYTHONPATH": os.pathsep.join(entry or str(Path.cwd()) for entry in sys.path),
        # By default threads that wait for each other spin. On a busy machine they take the processor away from the very
        # thread that they wait for: a step of a small model then takes a hundred times as long.
        "OMP_WAIT_POLICY": "PASSIVE",
        # Otherwise looking for a GPU initializes CUDA, which does not work in a fork.
        "PYTORCH_NVML_BASED_CUDA_CHECK": "1",
    }
    command = [sys.executable, "-P", "-m", "evaluation.runners.worker", str(os.getpid()), str(connection.fileno())]

    def supervise() -> None:
        process = subprocess.Popen(
            command,
            env={**os.environ, **settings},
            stdin=subprocess.DEVNULL,
            stdout=_STDERR,  # what a suite's code prints
            pass_fds=[connection.fileno()],
            start_new_session=True,
        )
        started.append(process)
        ready.set()
        process.wait()  # the kernel ends the process with the thread that started it, so this one has to stay

    threading.Thread(target=supervise, daemon=True, name="rammerge-models").start()
    ready.wait()
    return started[0]
