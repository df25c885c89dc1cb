"""Choosing sizes and threads so that the process stays below its memory limit, and forecasting its peak."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rammerge.checkpoints.checkpoint import Checkpoint
from rammerge.engine import gpu
from rammerge.engine.buffers import page_bytes
from rammerge.engine.options import MergeOptions, most_threads
from rammerge.engine.output.shards import most_waiting
from rammerge.errors import InputError
from rammerge.numerics.rounding import FLOAT_DTYPES

MIN_BLOCK, DEFAULT_BLOCK = 1 << 14, 1 << 20
# A tile of every input stays in a core's second-level cache from reading to merging.
TILE_ELEMENTS = 1 << 17
# Default limit: 1 GiB for the whole process, or 512 MiB on top of what it already holds, whichever is larger.
DEFAULT_MEMORY, DEFAULT_ADDED_MEMORY = 1 << 30, 1 << 29
# Eager code makes a few dozen intermediate tensors; this many elements keep them in a core's second-level cache.
EAGER_ELEMENTS = 1 << 15
EAGER_ELEMENT_BYTES = 4 * 48
EAGER_BYTES = EAGER_ELEMENTS * EAGER_ELEMENT_BYTES
# A block of a patch, its frames, bits, steps and positions (rammerge.checkpoints.patched.blocks).
DECODING_BYTES = 2 << 20
# The writing threads, and what the allocator keeps.
_FIXED_BYTES = 8 << 20


@dataclass(frozen=True)
class MemoryPlan:
    """The sizes of a merge's work, and the forecast of the process's peak resident bytes.

    Attributes:
        block: elements that a thread takes at a time and that are written together; a power of two.
        longest: the most elements that a thread reads for a block: the whole rows that it is a part of.
        tile: elements of a block that are read and computed together.
        threads: worker threads.
        forecast: bytes.
    """

    block: int
    longest: int
    tile: int
    threads: int
    forecast: int


@dataclass(frozen=True)
class Needs:
    """What a merge needs memory for.

    Attributes:
        checkpoints: base and members, as views with the base's names and shapes.
        options: the limit, the output dtype, and the number of threads if the user set it.
        outputs: how many models are written at the same time.
        reserved: bytes that each thread needs in addition to inputs and results.
        longest_row: elements that a tile has at least.
        room: of the GPU where blocks are computed whole; None on a CPU, where they are in tiles that fit into a cache.
        gpu_element: bytes for each element of a block on the GPU, in addition to the inputs.
    """

    checkpoints: Sequence[Checkpoint]
    options: MergeOptions
    outputs: int
    reserved: int
    longest_row: int
    room: gpu.Room | None = None
    gpu_element: int = 0

    @property
    def largest(self) -> int:
        """The number of elements of the largest tensor."""
        return max((info.numel for info in self.checkpoints[0].tensors.values()), default=1)

    def plan(self, resident: int, block: int, threads: int) -> MemoryPlan:
        """Return the plan of a process that holds `resident` bytes, for a length of blocks and a number of threads."""
        tile = max(self.longest_row, block if self.room else min(block, TILE_ELEMENTS))
        sizes = [largest_block_bytes(checkpoint, tile) for checkpoint in self.checkpoints]
        inputs = sum(map(gpu.page_locked_bytes, sizes)) if self.room else page_bytes(sum(sizes))
        longest = block + 2 * (self.longest_row - 1)
        inputs += sum(decoded_bytes(checkpoint, longest) for checkpoint in self.checkpoints)
        result = page_bytes(FLOAT_DTYPES[self.options.dtype].itemsize * min(block, self.largest))
        # Chunks that are filled, and those that wait to be hashed or written.
        results = (threads * self.outputs + most_waiting(self.outputs)) * result
        added = threads * (inputs + self.reserved) + results + _FIXED_BYTES
        return MemoryPlan(block, longest, tile, threads, resident + added)

    def on_gpu(self, plan: MemoryPlan) -> int:
        """Return the bytes that the blocks of a plan take on the GPU."""
        inputs = sum(largest_block_bytes(checkpoint, plan.tile) for checkpoint in self.checkpoints)
        return gpu.LANES * (inputs + min(plan.tile, max(self.largest, 1)) * self.gpu_element)

    def fit(self, plan: MemoryPlan, limit: int) -> bool:
        """Return whether a plan stays below the memory limit, and on a GPU below that of the GPU."""
        return plan.forecast <= limit and (self.room is None or self.on_gpu(plan) <= self.room.nbytes)

    @property
    def most_threads(self) -> int:
        """The largest number of worker threads."""
        most = most_threads(self.options)
        return most if self.room is None or self.options.threads else min(most, gpu.MOST_THREADS)


def plan_memory(needs: Needs) -> MemoryPlan:
    """Choose block length and threads so that the process stays below its memory limit, and forecast its peak.

    Raises:
        InputError: not even the smallest blocks fit; the message says how much memory is enough.
    """
    options, resident, limit = needs.options, resident_bytes(), memory_limit(needs.options)
    threads, least_threads = needs.most_threads, options.threads or 1
    largest_block = DEFAULT_BLOCK if needs.room is None else gpu.BLOCK
    block = min(largest_block, max(MIN_BLOCK, 1 << (needs.largest - 1).bit_length()))
    found = needs.plan(resident, block, threads)
    while not needs.fit(found, limit) and (block > MIN_BLOCK or threads > least_threads):
        if block > MIN_BLOCK:
            block //= 2
        else:
            threads -= 1
        found = needs.plan(resident, block, threads)
    if found.forecast > limit:
        needed = -(-found.forecast // (1 << 20))
        raise InputError(f"--memory {limit / 2**20:.0f}MiB is too little: this merge needs {needed}MiB")
    if needs.room and not needs.fit(found, limit):
        raise needs.room.refuse(needs.on_gpu(found))
    return found


def largest_block_bytes(checkpoint: Checkpoint, elements: int) -> int:
    """Return the bytes of the largest block of up to `elements` elements of a checkpoint's tensors."""
    infos = checkpoint.tensors.values()
    return max((min(info.numel, elements) * info.dtype.itemsize for info in infos), default=0)


def memory_limit(options: MergeOptions) -> int:
    """Return the most bytes that the process may hold."""
    return options.memory or max(DEFAULT_MEMORY, resident_bytes() + DEFAULT_ADDED_MEMORY)


def decoded_bytes(checkpoint: Checkpoint, block: int) -> int:
    """Return what a thread needs to decode blocks of a checkpoint, if it is a patch."""
    if checkpoint.originals is None:
        return 0
    # The elements, and frames that are hardly longer.
    return 2 * page_bytes(largest_block_bytes(checkpoint, block)) + DECODING_BYTES


def resident_bytes() -> int:
    """Return the bytes that the process holds."""
    fields = Path("/proc/self/statm").read_text(encoding="ascii").split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")
