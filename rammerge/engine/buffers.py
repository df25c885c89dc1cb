"""Memory that is read into and written from again and again: aligned, and in huge pages where there are any."""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Sequence
from contextlib import suppress
from itertools import accumulate
from typing import TYPE_CHECKING

from rammerge.numerics.dtypes import DType
from rammerge.system.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

_HUGE_PAGE, _CACHE_LINE = 1 << 21, 64


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
