"""Reusable memory for reading and writing: aligned, and in huge pages where there are any."""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Sequence
from contextlib import suppress
from itertools import accumulate
from typing import TYPE_CHECKING

from rammerge.engine.gpu import page_locked
from rammerge.numerics.dtypes import DType
from rammerge.system.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

_HUGE_PAGE, _CACHE_LINE = 1 << 21, 64


class Buffer:
    """Memory into which one thread reads one input, block after block.

    Attributes:
        memory: the whole memory.
        address: its first byte's address.
    """

    def __init__(self, memory: memoryview) -> None:
        self.memory = memory
        self.address = address(memory)
        self._last: tuple[int, DType, Tensor] | None = None

    def view(self, elements: int, dtype: DType) -> Tensor:
        """Return the first `elements` elements of `dtype` in the memory."""
        # The last view is kept, because every call of torch releases the interpreter lock and must acquire it again.
        if self._last is None or self._last[:2] != (elements, dtype):
            self._last = (elements, dtype, as_tensor(self.memory[: elements * dtype.itemsize], dtype))
        return self._last[2]


def buffers(sizes: Sequence[int], *, pinned: bool) -> list[Buffer]:
    """Return a thread's buffers of the given sizes in bytes; `pinned` for a GPU (rammerge.engine.gpu)."""
    if pinned:
        return [Buffer(page_locked(size)) for size in sizes]
    # Side by side, so that together they fill huge pages.
    *starts, end = accumulate((-(-size // _CACHE_LINE) * _CACHE_LINE for size in sizes), initial=0)
    memory = pages(end)
    return [Buffer(memory[start : start + size]) for start, size in zip(starts, sizes, strict=True)]


def pages(nbytes: int) -> memoryview:
    """Return zeroed memory that starts at a page. Large memory is made of huge pages if the kernel has them."""
    page = _page(nbytes)
    whole = mmap.mmap(-1, page_bytes(nbytes) + page, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if page == _HUGE_PAGE:
        with suppress(OSError, AttributeError):  # kernels and systems without huge pages
            whole.madvise(mmap.MADV_HUGEPAGE)
    start = -address(memoryview(whole)) % page
    return memoryview(whole)[start : start + nbytes]


def page_bytes(nbytes: int) -> int:
    """Return the number of bytes that `pages` reserves for `nbytes`."""
    page = _page(nbytes)
    return -(-max(nbytes, 1) // page) * page


def _page(nbytes: int) -> int:
    # The rest of the last huge page is lost, so small memory is made of ordinary pages.
    return _HUGE_PAGE if 4 * nbytes >= _HUGE_PAGE else mmap.PAGESIZE


def address(memory: memoryview) -> int:
    """Return the address of writable memory."""
    return ctypes.addressof(ctypes.c_char.from_buffer(memory))


def as_tensor(memory: memoryview | Tensor, dtype: DType) -> Tensor:
    """Return a tensor of `dtype` that shares writable memory. A tensor, which may be a GPU's, is returned as it is."""
    return torch.frombuffer(memory, dtype=dtype.torch_dtype) if isinstance(memory, memoryview) else memory


def bytes_of(tensor: Tensor) -> memoryview:
    """Return the memory of a vector on the CPU as bytes."""
    memory: memoryview = tensor.view(torch.uint8).numpy().data
    return memory
