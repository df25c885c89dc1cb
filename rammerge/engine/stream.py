"""Reading blocks of tensors into reused buffers, and working through them on several threads."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import resource
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from rammerge.checkpoints.headers import TensorInfo
from rammerge.errors import InputError, RammergeError
from rammerge.numerics.dtypes import DType
from rammerge.system import libc
from rammerge.system.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

Unit = TypeVar("Unit")

_SYNC_FILE_RANGE_WRITE = 2
_HUGE_PAGE, _CACHE_LINE = 1 << 21, 64


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

    def read(self, info: TensorInfo, start: int, memory: memoryview) -> None:
        """Fill `memory` with the bytes of a tensor from its element `start` on.

        Raises:
            RammergeError: the file ends before.
        """
        read_into(self.descriptor(info.file), memory, info.offset + start * info.dtype.itemsize, info.file)

    def will_read(self, info: TensorInfo, start: int, stop: int) -> None:
        """Ask the kernel to fetch these elements in the background."""
        size = info.dtype.itemsize
        offset = info.offset + start * size
        os.posix_fadvise(self.descriptor(info.file), offset, (stop - start) * size, os.POSIX_FADV_WILLNEED)


class Buffer:
    """Memory that one thread reads one input into, again and again.

    Attributes:
        memory: all of it.
        address: where it begins.
    """

    def __init__(self, memory: memoryview) -> None:
        self.memory = memory
        self.address = address(memory)
        self._last: tuple[int, DType, Tensor] | None = None

    def view(self, elements: int, dtype: DType) -> Tensor:
        """Return the first bytes as elements of `dtype`."""
        # Every operation of torch hands the interpreter lock over and has to win it back, so the last view is kept.
        if self._last is None or self._last[:2] != (elements, dtype):
            self._last = (elements, dtype, as_tensor(self.memory[: elements * dtype.itemsize], dtype))
        return self._last[2]


def buffers(sizes: Sequence[int], *, pinned: bool) -> list[Buffer]:
    """Return a thread's buffers of so many bytes; pinned for a CUDA device, so that copies overlap."""
    if pinned:
        return [Buffer(torch.empty(size, dtype=torch.uint8, pin_memory=True).numpy().data) for size in sizes]
    # Side by side, so that together they are enough for a huge page.
    *starts, end = accumulate((-(-size // _CACHE_LINE) * _CACHE_LINE for size in sizes), initial=0)
    memory = pages(end)
    return [Buffer(memory[start : start + size]) for start, size in zip(starts, sizes, strict=True)]


def pages(nbytes: int) -> memoryview:
    """Return zeroed memory that begins at a page; at a huge one and made of such, if they are wanted and to be had."""
    page = _page(nbytes)
    whole = mmap.mmap(-1, page_bytes(nbytes) + page, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if page == _HUGE_PAGE:
        with suppress(OSError, AttributeError):  # kernels and systems without
            whole.madvise(mmap.MADV_HUGEPAGE)
    start = -address(memoryview(whole)) % page
    return memoryview(whole)[start : start + nbytes]


def page_bytes(nbytes: int) -> int:
    """Return how much memory `pages` takes for so many bytes."""
    page = _page(nbytes)
    return -(-max(nbytes, 1) // page) * page


def _page(nbytes: int) -> int:
    # The rest of a huge page is lost, which is not worth it for little.
    return _HUGE_PAGE if 4 * nbytes >= _HUGE_PAGE else mmap.PAGESIZE


def address(memory: memoryview) -> int:
    """Return where writable memory begins."""
    return ctypes.addressof(ctypes.c_char.from_buffer(memory))


def as_tensor(memory: memoryview, dtype: DType) -> Tensor:
    """Return writable memory as elements of `dtype`, which share it."""
    return torch.frombuffer(memory, dtype=dtype.torch_dtype)


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


def allocate(descriptor: int, nbytes: int) -> None:
    """Make an open file `nbytes` long, and where the file system can, have it set the room aside.

    Not by `os.posix_fallocate`: where the file system cannot, as NFS and many in user space, that writes into every
    block, which took the better part of a merge.

    Raises:
        OSError: there is not so much room.
    """
    try:
        libc.call("fallocate", descriptor, 0, ctypes.c_int64(0), ctypes.c_int64(nbytes))
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.ENOSYS):
            raise
        os.ftruncate(descriptor, nbytes)


def start_flush(descriptor: int, offset: int, nbytes: int) -> None:
    """Ask the kernel to begin writing a part of an open file to the disk; what fails shows when the file is flushed."""
    with suppress(OSError):
        libc.call("sync_file_range", descriptor, ctypes.c_int64(offset), ctypes.c_int64(nbytes), _SYNC_FILE_RANGE_WRITE)


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
