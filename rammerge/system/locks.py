"""Lock files between processes. The kernel frees a lock however its holder ends."""

import fcntl
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO


@contextmanager
def locked(path: Path, *, shared: bool = False, wait: bool = True) -> Iterator[None]:
    """Wait for the lock file `path`, then hold it. The file is made if it is missing, and stays.

    Args:
        path: the file.
        shared: whether others may share the lock at the same time.
        wait: whether to wait for whoever holds it.

    Raises:
        BlockingIOError: without `wait`, somebody holds the lock.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
        yield


def share_byte(file: IO[bytes], offset: int) -> None:
    """Lock one byte of a file for sharing, until `file` is closed. This waits for whoever has locked it alone.

    The lock belongs to the open file: two threads that each opened it lock each other out.

    Raises:
        OSError: the file system has no such locks.
    """
    fcntl.fcntl(file, fcntl.F_OFD_SETLKW, _byte(fcntl.F_RDLCK, offset))


@contextmanager
def try_byte(file: IO[bytes], offset: int) -> Iterator[None]:
    """Lock one byte of a file alone while the context lasts, without waiting for it; see `share_byte`.

    Raises:
        OSError: somebody has it, or the file system has no such locks.
    """
    fcntl.fcntl(file, fcntl.F_OFD_SETLK, _byte(fcntl.F_WRLCK, offset))
    try:
        yield
    finally:
        fcntl.fcntl(file, fcntl.F_OFD_SETLK, _byte(fcntl.F_UNLCK, offset))


def _byte(kind: int, offset: int) -> bytes:
    """Return C's `struct flock` of one byte: kind, whence, start, length, and a process, which is 0."""
    return struct.pack("@hhqqi4x", kind, os.SEEK_SET, offset, 1, 0)


@contextmanager
def try_locked(path: Path) -> Iterator[None]:
    """Hold the lock file `path` without waiting for it. The file is made if it is missing, and removed at the end.

    It is a file because NFS locks only what is open for writing, and a directory cannot be. Do not put it into a
    directory that is removed while the lock is held: NFS does not remove a directory that contains an open file.

    Raises:
        BlockingIOError: another process holds the lock.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = _hold(path)
    try:
        yield
    finally:
        with suppress(OSError):  # a file that stays does no harm: the next holder takes it
            path.unlink()
        os.close(descriptor)


def _hold(path: Path) -> int:
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(descriptor), path.stat()):
                    return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # the last holder removed the file after this process had opened it
