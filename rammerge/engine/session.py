"""What all passes over the same checkpoints share: the agents' order, threads, buffers and files."""

from __future__ import annotations

import importlib
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, TypeVar

from rammerge.checkpoints.checkpoint import Checkpoint
from rammerge.checkpoints.headers import TensorInfo
from rammerge.engine.compiling.loop import LEAST_ELEMENTS, Source
from rammerge.engine.output.layout import Unit
from rammerge.engine.output.shards import AHEAD
from rammerge.engine.stream import Buffer, Files, buffers, page_bytes, work_through
from rammerge.errors import InputError
from rammerge.numerics.rounding import FLOAT_DTYPES, Rounding
from rammerge.system.allocator import keep_freed_blocks
from rammerge.system.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

Compile = Literal["auto", "always", "never"]

MIN_BLOCK, DEFAULT_BLOCK = 1 << 14, 1 << 20
# Few enough that a tile of every input stays in a core's second-level cache from reading to merging.
TILE_ELEMENTS = 1 << 17
# Without a limit of the caller's the process stays below the first; where it is large already, as a host of other
# work, the merge may add the second to what is there.
DEFAULT_MEMORY, DEFAULT_ADDED_MEMORY = 1 << 30, 1 << 29
# Eager code makes a few dozen intermediate tensors; this many elements keep them in a core's second-level cache.
EAGER_ELEMENTS = 1 << 15
_EAGER_BYTES = EAGER_ELEMENTS * 4 * 48
# The writing threads, the compiled functions, and what the allocator keeps.
_FIXED_BYTES = 16 << 20
_READ_AHEAD = 8


@dataclass(frozen=True)
class MergeOptions:
    """How to compute and write, none of which but the first four changes a byte of the result.

    Attributes:
        dtype: output dtype of float tensors: float32, bfloat16 or float16.
        rounding: nearest or stochastic.
        seed: run seed of stochastic rounding and of methods that draw random numbers.
        shard_size: largest output shard in bytes.
        device: cpu or cuda, or cuda:N.
        memory: peak resident bytes of the process that the plan must keep, refused if the least that works is more;
            by default 1 GiB, or 512 MiB above what the process holds already when that is more.
        threads: worker threads, by default one for each processor that this process may use and `memory` has room for.
        compile: auto (where the work repays it), always (wait for it) or never.
    """

    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    rounding: Rounding = "nearest"
    seed: int = 0
    shard_size: int = 5_000_000_000
    device: str = "cpu"
    memory: int | None = None
    threads: int | None = None
    compile: Compile = "auto"


@dataclass(frozen=True)
class Progress:
    """How far a stage is, in elements."""

    stage: str
    done: int
    total: int


class Job(Protocol):
    """What a thread does at a time."""

    @property
    def units(self) -> Sequence[Unit]:
        """What is read for it."""
        ...


AnyJob = TypeVar("AnyJob", bound=Job)


@dataclass(frozen=True)
class MemoryPlan:
    """How a merge is cut up, and the forecast of the process's peak resident bytes.

    Attributes:
        block: elements that a thread takes at a time, and that are written at once; a power of two.
        tile: elements of a block that are read and computed at once.
        threads: worker threads.
        forecast: bytes.
    """

    block: int
    tile: int
    threads: int
    forecast: int


class Session:
    """One merge's inputs and machinery. Use as a context manager: it owns descriptors and compiler processes."""

    def __init__(
        self,
        base: Checkpoint,
        agents: Mapping[str, Checkpoint],
        options: MergeOptions,
        progress: Callable[[Progress], None] | None = None,
    ) -> None:
        self.base = base
        self.agents = dict(agents)
        self.options = options
        self.device = _device(options.device)
        self.floats = [name for name, info in base.tensors.items() if info.dtype.is_floating_point]
        keep_freed_blocks()
        self.files = Files()
        self.notes: list[str] = []
        self._progress = progress
        self._reserved = 0
        self._buffers = threading.local()
        self._closing: list[Callable[[], None]] = [self.files.close]

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        for close in self._closing:
            close()

    def closing(self, close: Callable[[], None]) -> None:
        """Have `close` called at the end."""
        self._closing.append(close)

    @cached_property
    def plan(self) -> MemoryPlan:
        """How the work is cut up; made when it is first asked for, which is after what computes has been loaded.

        Raises:
            InputError: `options.memory` is too little.
        """
        return plan_memory(self.base, self.agents, self.options, self._reserved)

    def reserve(self, nbytes: int) -> None:
        """Have the plan count so many bytes for each thread, besides inputs and results; the largest call holds."""
        self._reserved = max(self._reserved, nbytes)

    def load_torch(self) -> None:
        """Import torch, for code that runs eagerly: now, so that the plan counts the memory that it takes."""
        importlib.import_module("torch")
        self.reserve(_EAGER_BYTES)

    @property
    def elements(self) -> int:
        """Float elements of the model."""
        return sum(self.base.tensors[name].numel for name in self.floats)

    def inputs(self, tensor: str) -> list[TensorInfo]:
        """Return where the base and each agent store a tensor."""
        return [self.base.tensors[tensor], *(agent.tensors[tensor] for agent in self.agents.values())]

    def blocks(self, tensors: Sequence[str]) -> Iterator[Unit]:
        """Cut tensors into blocks, in order."""
        for name in tensors:
            numel = self.base.tensors[name].numel
            for start in range(0, numel, self.plan.block):
                yield Unit(name, start, min(numel, start + self.plan.block))

    def tiles(self, unit: Unit) -> Iterator[tuple[int, Tensor, list[Tensor]]]:
        """Read a unit tile by tile: index of the first element, the base's elements, and each agent's.

        The elements are valid until the same thread reads the next.
        """
        infos = self.inputs(unit.tensor)
        for start in range(unit.start, unit.stop, self.plan.tile):
            stop = min(unit.stop, start + self.plan.tile)
            read = [self._read(info, start, stop, buffer) for info, buffer in zip(infos, self._own(), strict=True)]
            if self.device != "cpu":
                read = [values.to(self.device, non_blocking=True) for values in read]
            yield start, read[0], read[1:]

    def _read(self, info: TensorInfo, start: int, stop: int, buffer: Buffer) -> Tensor:
        self.files.read(info, start, buffer.memory[: (stop - start) * info.dtype.itemsize])
        return buffer.view(stop - start, info.dtype)

    def sources(self, unit: Unit) -> list[Source]:
        """Return where compiled code reads a unit, through the calling thread's buffers."""
        return [
            Source(
                info.file,
                self.files.descriptor(info.file),
                info.offset + unit.start * info.dtype.itemsize,
                info.dtype,
                buffer,
            )
            for info, buffer in zip(self.inputs(unit.tensor), self._own(), strict=True)
        ]

    def _own(self) -> list[Buffer]:
        if not hasattr(self._buffers, "inputs"):
            sizes = [_buffer_bytes(checkpoint, self.plan.tile) for checkpoint in (self.base, *self.agents.values())]
            self._buffers.inputs = buffers(sizes, pinned=self.device != "cpu")
        own: list[Buffer] = self._buffers.inputs
        return own

    def run(self, stage: str, jobs: Sequence[AnyJob], work: Callable[[AnyJob], None]) -> None:
        """Do jobs, begun in their order, on all threads, reading ahead and reporting progress."""
        elements = [sum(unit.stop - unit.start for unit in job.units) for job in jobs]
        total = sum(elements)
        done = 0
        lock = threading.Lock()

        def step(indexed: tuple[int, AnyJob]) -> None:
            nonlocal done
            index, job = indexed
            for ahead in jobs[index + _READ_AHEAD : index + _READ_AHEAD + 1]:
                self._will_read(ahead)
            work(job)
            with lock:
                done += elements[index]
                if self._progress:
                    self._progress(Progress(stage, done, total))

        work_through(list(enumerate(jobs)), step, self.plan.threads)

    def _will_read(self, job: Job) -> None:
        for unit in job.units:
            for info in self.inputs(unit.tensor):
                self.files.will_read(info, unit.start, unit.stop)

    def refuse_non_finite(self, unit: Unit) -> None:
        """Raise the error that names which input of a unit has a NaN or an infinity, or that the result overflowed."""
        labels = ["the base", *(f"agent '{name}'" for name in self.agents)]
        for _, base, agents in self.tiles(unit):
            for label, values in zip(labels, [base, *agents], strict=True):
                if not bool(torch.isfinite(values.float()).all()):
                    raise InputError(
                        f"{label} has a NaN or an infinity in '{unit.tensor}'; its training diverged or its file is "
                        "damaged: use an earlier checkpoint"
                    )
        raise InputError(f"the merged '{unit.tensor}' overflows {self.options.dtype}; use dtype bfloat16 or float32")


def most_threads(options: MergeOptions) -> int:
    """Return how many worker threads there may be."""
    return options.threads or len(os.sched_getaffinity(0))


def plan_memory(base: Checkpoint, agents: Mapping[str, Checkpoint], options: MergeOptions, reserved: int) -> MemoryPlan:
    """Choose block length and threads so that the process stays below its limit of memory, and forecast its peak.

    Raises:
        InputError: not even the smallest blocks fit; the message says how much would do.
    """
    resident = _resident_bytes()
    limit = options.memory or max(DEFAULT_MEMORY, resident + DEFAULT_ADDED_MEMORY)
    threads = most_threads(options)
    least_threads = options.threads or 1
    largest = max((info.numel for info in base.tensors.values()), default=1)
    block = min(DEFAULT_BLOCK, max(MIN_BLOCK, 1 << (largest - 1).bit_length()))
    on_cpu = _device(options.device) == "cpu"
    output = FLOAT_DTYPES[options.dtype].itemsize

    def tile() -> int:
        return min(block, TILE_ELEMENTS) if on_cpu else block

    def forecast() -> int:
        # The inputs, the result, what computes needs besides, and what is yet to be hashed or written.
        inputs = page_bytes(sum(_buffer_bytes(checkpoint, tile()) for checkpoint in (base, *agents.values())))
        result = page_bytes(output * min(block, largest))
        return resident + threads * (inputs + result + reserved) + AHEAD * result + _FIXED_BYTES

    while forecast() > limit and (block > MIN_BLOCK or threads > least_threads):
        if block > MIN_BLOCK:
            block //= 2
        else:
            threads -= 1
    if forecast() > limit:
        needed = -(-forecast() // (1 << 20))
        raise InputError(f"--memory {limit / 2**20:.0f}MiB is too little: this merge needs {needed}MiB")
    return MemoryPlan(block, tile(), threads, forecast())


def _buffer_bytes(checkpoint: Checkpoint, block: int) -> int:
    """Return the bytes of the largest block of a checkpoint's tensors."""
    infos = checkpoint.tensors.values()
    return max((max(min(info.numel, block), LEAST_ELEMENTS) * info.dtype.itemsize for info in infos), default=0)


def _resident_bytes() -> int:
    fields = Path("/proc/self/statm").read_text(encoding="ascii").split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")


def _device(name: str) -> str:
    if name == "cpu":
        return name
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise InputError(f"unknown device '{name}'; use cpu, cuda or cuda:N") from error
    if device.type not in ("cpu", "cuda"):
        raise InputError(f"device '{name}' is not supported; use cpu, cuda or cuda:N")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise InputError(f"device '{name}' was asked for and this machine has no CUDA device; use --device cpu")
    return device.type if device.type == "cpu" else name
