"""What the soak breaks: the processes of runs, the servers, and a disk of its own."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

from rammerge.system.servers import Server

_GONE_SECONDS = 60.0


class Kept:
    """A server that can be killed and started again on its port."""

    def __init__(self, make: Callable[[], AbstractContextManager[Server]]) -> None:
        """Start it by what `make` returns, and wait until it answers."""
        self._make = make
        self.start()

    def start(self) -> None:
        """Start it, and wait until it answers."""
        self._running = self._make()
        self._server = self._running.__enter__()
        self._server.wait_until_healthy()

    def kill(self) -> None:
        """End it as a machine's end would."""
        os.killpg(self._server.process.pid, signal.SIGKILL)
        self.stop()

    def stop(self) -> None:
        """End it."""
        self._running.__exit__(None, None, None)

    @property
    def memory(self) -> int:
        """Resident bytes of its processes."""
        return sum(_resident(pid) for pid in self.processes)

    @property
    def processes(self) -> set[int]:
        """Its processes."""
        group = self._server.process.pid
        return {pid for pid in processes() if _group(pid) == group}


class Disk:
    """A disk that can be filled: a file system in memory, or a directory where none can be mounted."""

    def __init__(self, scratch: Path, size: int) -> None:
        """Mount it below `scratch`, with what the soak before this one has kept."""
        self.path, self._kept = scratch / "disk", scratch / "kept"
        self._filler = self.path / "filler"
        self.path.mkdir(parents=True, exist_ok=True)
        self.can_be_full = self.path.is_mount()  # of a soak that was killed: with all that was on it
        if not self.can_be_full:
            mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "soak", str(self.path)]
            self.can_be_full = subprocess.run(mount, capture_output=True, check=False).returncode == 0
            if self.can_be_full and self._kept.is_dir():
                _copy(self._kept, self.path)
        self.make_room()

    def keep(self) -> None:
        """Keep what is on it for the next soak, and unmount it."""
        if self.can_be_full:
            self.make_room()
            _copy(self.path, self._kept)
            subprocess.run(["umount", str(self.path)], check=True)

    def fill(self, room: int) -> None:
        """Leave `room` bytes."""
        size = shutil.disk_usage(self.path).free - room
        if size > 0:
            with self._filler.open("wb") as file, suppress(OSError):  # others write meanwhile
                os.posix_fallocate(file.fileno(), 0, size)

    def make_room(self) -> None:
        """Undo `fill`."""
        self._filler.unlink(missing_ok=True)


def processes() -> set[int]:
    """Return all processes of this machine."""
    return {int(directory.name) for directory in Path("/proc").glob("[0-9]*")}


@contextmanager
def nothing_left(home: Path, servers: Sequence[Kept]) -> Iterator[list[int]]:
    """Yield a list that after the context has the processes of `home` that began in it and have not ended.

    Those of servers, which may have been started again, are not counted.
    """
    before, left = _of(home), list[int]()
    yield left
    deadline = time.monotonic() + _GONE_SECONDS
    before |= set[int]().union(*(server.processes for server in servers))
    while (more := _of(home) - before) and time.monotonic() < deadline:
        time.sleep(0.1)
    left += sorted(more)


def children_of(pid: int) -> list[int]:
    """Return the processes that a process has started: of a run, those that run models."""
    return [child for child in processes() if _read(child, "stat").rpartition(b")")[2].split()[1:2] == [b"%d" % pid]]


def _of(home: Path) -> set[int]:
    words = f"RAMMERGE_HOME={home}\0".encode()
    return {pid for pid in processes() if words in _read(pid, "environ")}


def _read(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""


def _group(pid: int) -> int | None:
    with suppress(ProcessLookupError):
        return os.getpgid(pid)
    return None


def _resident(pid: int) -> int:
    fields = _read(pid, "statm").split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE") if fields else 0


def _copy(source: Path, target: Path) -> None:
    # Hard links are what registered versions are made of; shutil would copy each name.
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(exist_ok=True)
    subprocess.run(["cp", "-a", f"{source}/.", str(target)], check=True, stdout=sys.stderr)
