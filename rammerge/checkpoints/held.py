"""Checkpoints whose weights are in memory, for merges that are tried one after the other."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import accumulate
from types import MappingProxyType

from rich.filesize import decimal

from rammerge.checkpoints.checkpoint import Checkpoint
from rammerge.checkpoints.headers import Read, TensorInfo
from rammerge.errors import InputError
from rammerge.system.memory import free_memory
from rammerge.system.reading import opened

_ALIGNMENT = 64


@dataclass(frozen=True, slots=True)
class HeldTensor(TensorInfo):
    """A tensor in memory.

    Attributes:
        memory: its bytes.
    """

    memory: memoryview = field(compare=False, repr=False)

    @property
    def held(self) -> memoryview:
        """The tensor's bytes."""
        return self.memory

    def fill(self, first: int, memory: memoryview, _: Read) -> None:
        """Fill `memory` with the tensor's bytes from byte `first`."""
        memory[:] = self.memory[first : first + len(memory)]


def hold(checkpoint: Checkpoint) -> Checkpoint:
    """Return a view of a checkpoint whose weights are in memory, which is freed with the view.

    Raises:
        InputError: a file cannot be read, or a patch is damaged.
    """
    infos = list(checkpoint.tensors.values())
    *starts, end = accumulate((-(-info.nbytes // _ALIGNMENT) * _ALIGNMENT for info in infos), initial=0)
    whole = mmap.mmap(-1, max(end, 1), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with suppress(OSError, AttributeError):  # kernels and systems without huge pages
        whole.madvise(mmap.MADV_HUGEPAGE)
    memory = memoryview(whole)

    def copied(info: TensorInfo, start: int) -> HeldTensor:
        own = memory[start : start + info.nbytes]
        info.fill(0, own, read)
        return HeldTensor(info.name, info.dtype, info.shape, info.file, info.offset, info.nbytes, own)

    files = [file for info in infos for file in info.files]
    with opened(files) as read, ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1)) as pool:
        held = dict(zip(checkpoint.tensors, pool.map(copied, infos, starts), strict=True))
    return replace(checkpoint, tensors=MappingProxyType(held))


def check_room(checkpoints: Iterable[Checkpoint]) -> None:
    """Check that weights fit into the memory that is free.

    Raises:
        InputError: they do not; the message says how much they take.
    """
    needed = sum(info.nbytes for checkpoint in checkpoints for info in checkpoint.tensors.values())
    free = free_memory()
    if needed > free:
        raise InputError(
            f"holding the base and its agents takes {decimal(needed)} and {decimal(free)} of memory is free; merge "
            "from their files, without `held()`"
        )
