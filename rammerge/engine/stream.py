"""Reading blocks of tensors into reused buffers, and working through them on several threads."""

import ctypes
import errno
import os
import resource
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from rammerge.checkpoints.headers import TensorInfo
from rammerge.errors import InputError, RammergeError

Unit = TypeVar("Unit")

_SYNC_FILE_RANGE_WRITE = 2


class Files:
    """Read-only descriptors of many files, opened on first use and shared by all threads (reads are positional)."""

    def __init__(self) -> None:
        self._descriptors: dict[Path, int] = {}
        self._lock = threading.Lock()
        _raise_descriptor_limit()

    def close(self) -> None:
        """Close all."""
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

    def read(self, info: TensorInfo, start: int, stop: int, buffer: "Buffer") -> Tensor:
        """Read elements [start, stop) of a tensor into `buffer` and return them as a view of it in the stored dtype.

        Raises:
            RammergeError: the file ends before them.
        """
        size = info.dtype.itemsize
        nbytes = (stop - start) * size
        read_into(self.descriptor(info.file), buffer.memory[:nbytes], info.offset + start * size, info.file)
        return buffer.view(nbytes, info.dtype)

    def will_read(self, info: TensorInfo, start: int, stop: int) -> None:
        """Ask the kernel to fetch these elements in the background."""
        size = info.dtype.itemsize
        offset = info.offset + start * size
        os.posix_fadvise(self.descriptor(info.file), offset, (stop - start) * size, os.POSIX_FADV_WILLNEED)


class Buffer:
    """Memory that one thread reads one input into, again and again; pinned for a CUDA device, so that copies overlap.

    Attributes:
        memory: all of it.
        address: where it begins.
    """

    def __init__(self, nbytes: int, device: torch.device) -> None:
        self._bytes = torch.empty(max(nbytes, 1), dtype=torch.uint8, pin_memory=device.type == "cuda")
        self.memory: memoryview = self._bytes.numpy().data
        self.address = self._bytes.data_ptr()
        self._last = (0, torch.uint8, self._bytes[:0])

    def view(self, nbytes: int, dtype: torch.dtype) -> Tensor:
        """Return the first bytes as elements of `dtype`."""
        # Every operation of torch hands the interpreter lock over and has to win it back, so the last view is kept.
        if self._last[:2] != (nbytes, dtype):
            self._last = (nbytes, dtype, self._bytes[:nbytes].view(dtype))
        return self._last[2]


def read_into(descriptor: int, view: memoryview, offset: int, path: Path) -> None:
    """Fill `view` from `offset` of an open file.

    Raises:
        RammergeError: the file ends before.
    """
    done = 0
    while done < len(view):
        count = os.preadv(descriptor, [view[done:]], offset + done)
        if count == 0:
            raise refuse_short(path)
        done += count


def refuse_short(path: Path) -> RammergeError:
    """Return the error of a file that ended before its header says."""
    return RammergeError(f"{path} became shorter while it was read; run again once nothing writes to it")


def write_from(descriptor: int, view: memoryview, offset: int) -> None:
    """Write all of `view` at `offset` of an open file."""
    done = 0
    while done < len(view):
        done += os.pwrite(descriptor, view[done:], offset + done)


def start_flush(descriptor: int, offset: int, nbytes: int) -> None:
    """Ask the kernel to begin writing a part of an open file to the disk; what fails shows when the file is flushed."""
    flush = getattr(_libc(), "sync_file_range", None)
    if flush is not None:
        flush(descriptor, ctypes.c_int64(offset), ctypes.c_int64(nbytes), _SYNC_FILE_RANGE_WRITE)


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None)


def work_through(units: Sequence[Unit], work: Callable[[Unit], None], threads: int) -> None:
    """Call `work` on each unit, in order, on `threads` threads; the earliest unit's error ends all and is raised."""
    failures: dict[int, BaseException] = {}
    pending = _Shared(enumerate(units))

    def loop() -> None:
        for index, unit in pending:
            try:
                work(unit)
            except BaseException as error:  # an interrupt, too, must stop the other threads
                failures[index] = error
            if failures:
                return

    with ThreadPoolExecutor(max_workers=max(1, threads), thread_name_prefix="merge") as pool:
        futures = [pool.submit(loop) for _ in range(max(1, threads))]
        try:
            for future in futures:
                future.result()
        except BaseException as error:
            failures.setdefault(len(units), error)
    if failures:
        raise failures[min(failures)]


class _Shared(Iterable[Unit]):
    """An iterator that several threads draw from."""

    def __init__(self, source: Iterable[Unit]) -> None:
        self._source = iter(source)
        self._lock = threading.Lock()

    def __iter__(self) -> Iterator[Unit]:
        while True:
            with self._lock:
                try:
                    item = next(self._source)
                except StopIteration:
                    return
            yield item


def _open(path: Path) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        fix = "raise `ulimit -n`" if error.errno == errno.EMFILE else "restore it and run again"
        raise InputError(f"{path} cannot be opened ({os.strerror(error.errno or 0).lower()}); {fix}") from error


def _raise_descriptor_limit() -> None:
    # Eight agents in a hundred shards each need more than the usual soft limit of 1,024.
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
