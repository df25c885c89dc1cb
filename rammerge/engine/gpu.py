"""A GPU at work: streams, so that copies and computing overlap, page-locked memory for the copies, and its own memory.

Threads read blocks from files into page-locked memory. Then each takes one of a few lanes, copies its block to the GPU,
computes it and copies the result back. So while one block is computed, others are on their way there or back, and
further ones are read or written. No more blocks than lanes are on the GPU. A block's result depends on nothing else.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Protocol, Self

from rammerge.errors import InputError
from rammerge.system.lazy import torch

if TYPE_CHECKING:
    from rammerge.engine.blocks import BlockFunction
    from rammerge.engine.options import MergeOptions

# One block on its way to the GPU, one computed, one on its way back, and one whose kernels are being asked for.
LANES = 4
# More threads only wait for the others' copies.
MOST_THREADS = 8
# Large blocks, because asking for a kernel takes as long as computing a million elements.
BLOCK = 1 << 22
# float32 values that are held at once for each element, besides those of each agent and those that are counted.
_VALUES, _VALUES_PER_AGENT = 32, 4

_LOADING = threading.Lock()


class Stream(Protocol):
    """What the GPU does in order."""

    def synchronize(self) -> None:
        """Wait until everything that was asked of it is done."""


class Lanes:
    """A few streams, of which a thread has one at a time."""

    def __init__(self, streams: Sequence[Stream], used: Callable[[Any], AbstractContextManager[object]]) -> None:
        """Lend `streams`; in the context `used` of one, what a thread asks of the GPU goes to that stream."""
        self._used = used
        self._own = threading.local()
        self._free: SimpleQueue[Stream] = SimpleQueue()
        for stream in streams:
            self._free.put(stream)

    @classmethod
    def of(cls, device: str) -> Self:
        """Return the lanes of a GPU."""
        cuda: Any = torch.cuda  # its stream has no types
        return cls([cuda.Stream(device) for _ in range(LANES)], cuda.stream)

    @contextmanager
    def one(self) -> Iterator[None]:
        """Wait for a free stream and use it in this thread. At the end, all that was asked of it is done.

        A thread that has a lane already goes on in it.
        """
        if (held := getattr(self._own, "stream", None)) is not None:
            with _done(held):
                yield
            return
        self._own.stream = stream = self._free.get()
        try:
            with self._used(stream), _done(stream):
                yield
        finally:
            self._own.stream = None
            self._free.put(stream)


@contextmanager
def _done(stream: Stream) -> Iterator[None]:
    try:
        yield
    finally:  # after an error too: memory that a copy still reads must not be used again
        stream.synchronize()


def load_linear_algebra(device: str) -> None:
    """Have torch load its linear algebra for GPUs, which threads must not do at the same time at its first use."""
    with _LOADING:
        torch.linalg.eigvalsh(torch.eye(2, dtype=torch.float64, device=device))


def page_locked(nbytes: int) -> memoryview:
    """Return memory that is copied to and from a GPU at full speed and while the GPU computes.

    torch keeps it for later calls when it is no longer used, and takes the next power of two.
    """
    memory: memoryview = torch.empty(nbytes, dtype=torch.uint8, pin_memory=True).numpy().data
    return memory


def page_locked_bytes(nbytes: int) -> int:
    """Return how many bytes `page_locked` takes."""
    return 1 << max(0, nbytes - 1).bit_length()


def element_bytes(function: BlockFunction, agents: int) -> int:
    """Return how many bytes a block function takes on a GPU for each element, without the inputs."""
    values = _VALUES + _VALUES_PER_AGENT * agents + function.counts(agents)
    # Sums take a second and a third copy of what is summed.
    return 4 * values + sum(3 * dtype.itemsize for dtype in function.results(agents))


@dataclass(frozen=True)
class Room:
    """Memory of a GPU.

    Attributes:
        device: its name.
        nbytes: how much of it a merge may take.
    """

    device: str
    nbytes: int

    @classmethod
    def of(cls, options: MergeOptions, device: str) -> Self:
        """Return what the options allow; by default half of what is free now."""
        free, _ = torch.cuda.mem_get_info(device)
        return cls(device, free // 2 if options.device_memory is None else options.device_memory)

    def refuse(self, needed: int, what: str = "this merge") -> InputError:
        """Return the error for something that does not fit."""
        return InputError(
            f"--device-memory {self.nbytes / 2**20:.0f}MiB of {self.device} is too little: {what} needs "
            f"{-(-needed // (1 << 20))}MiB there"
        )
