"""The files that a merge reads. Each is opened once and read by position from all threads."""

import errno
import os
import resource
import threading
from pathlib import Path

from rammerge.checkpoints.headers import TensorInfo
from rammerge.errors import InputError, RammergeError
from rammerge.system.reading import read_into


class Files:
    """Read-only descriptors of many files. They are opened at first use and shared by all threads."""

    def __init__(self) -> None:
        self._descriptors: dict[Path, int] = {}
        self._lock = threading.Lock()
        _raise_descriptor_limit()

    def close(self) -> None:
        """Close all files."""
        for descriptor in self._descriptors.values():
            os.close(descriptor)
        self._descriptors.clear()

    def descriptor(self, path: Path) -> int:
        """Return the descriptor of `path`."""
        known = self._descriptors.get(path)
        if known is not None:
            return known
        with self._lock:
            if path not in self._descriptors:
                self._descriptors[path] = _open(path)
            return self._descriptors[path]

    def read(self, info: TensorInfo, start: int, memory: memoryview) -> None:
        """Fill `memory` with the bytes of a tensor, starting at element `start`.

        Raises:
            RammergeError: the file ends too early.
        """
        info.fill(start * info.dtype.itemsize, memory, self.read_file)

    def read_file(self, path: Path, offset: int, memory: memoryview) -> None:
        """Fill `memory` with the bytes at `offset` of a file.

        Raises:
            RammergeError: the file ends too early.
        """
        if read_into(self.descriptor(path), memory, offset) < len(memory):
            raise refuse_short(path)

    def will_read(self, info: TensorInfo, start: int, stop: int) -> None:
        """Ask the kernel to fetch these elements in the background."""
        size = info.dtype.itemsize
        offset, nbytes = info.extent(start * size, stop * size)
        os.posix_fadvise(self.descriptor(info.file), offset, nbytes, os.POSIX_FADV_WILLNEED)


def refuse_short(path: Path) -> RammergeError:
    """Return the error for a file that is shorter than its header says."""
    return RammergeError(f"{path} became shorter while it was read; run again once nothing writes to it")


def _open(path: Path) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        fix = "raise `ulimit -n`" if error.errno == errno.EMFILE else "restore it and run again"
        raise InputError(f"{path} cannot be opened ({os.strerror(error.errno or 0).lower()}); {fix}") from error


def _raise_descriptor_limit() -> None:
    # Eight agents with a hundred shards each have more files than the usual soft limit of 1,024.
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
