"""What all passes over the same checkpoints share: the agents' order, threads, buffers, files and kernels."""

import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import Popen
from typing import Literal

import torch
from torch import Tensor

from rammerge.checkpoints.checkpoint import Checkpoint
from rammerge.checkpoints.headers import TensorInfo
from rammerge.engine import compiled
from rammerge.engine.blocks import Arguments, BlockFunction
from rammerge.engine.stream import Files, byte_buffer, work_through
from rammerge.errors import InputError
from rammerge.rounding import FLOAT_DTYPES, Rounding

Compile = Literal["auto", "always", "never"]

MIN_BLOCK, DEFAULT_BLOCK = 1 << 14, 1 << 20
# Without a limit of the caller's the process stays below the first; where it is large already, as a host of other
# work, the merge may add the second to what is there.
DEFAULT_MEMORY, DEFAULT_ADDED_MEMORY = 1 << 30, 1 << 29
# Eager code makes a few dozen intermediate tensors; this many elements keep them in a core's second-level cache.
EAGER_ELEMENTS = 1 << 15
_EAGER_BYTES = EAGER_ELEMENTS * 4 * 48
# Hashing threads, the compiled functions, and what the allocator keeps.
_FIXED_BYTES = 16 << 20
# Below this much work eager code is done before a compiler would be; above, it begins and is overtaken.
COMPILE_FROM_ELEMENTS = 1_000_000_000
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


@dataclass(frozen=True, order=True)
class Unit:
    """Elements [start, stop) of one tensor."""

    tensor: str
    start: int
    stop: int


@dataclass(frozen=True)
class MemoryPlan:
    """Block length in elements and the forecast of the process's peak resident bytes."""

    block: int
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
        self.plan = plan_memory(base, self.agents, options)
        self.files = Files()
        self.notes: list[str] = []
        self._progress = progress
        self._buffers = threading.local()
        self._kernels: list[Kernel] = []

    def __enter__(self) -> "Session":
        return self

    def __exit__(self, *_: object) -> None:
        self.files.__exit__()
        for kernel in self._kernels:
            kernel.close()

    @property
    def elements(self) -> int:
        """Float elements of the model."""
        return sum(self.base.tensors[name].numel for name in self.floats)

    def inputs(self, tensor: str) -> list[TensorInfo]:
        """Return where the base and each agent store a tensor."""
        return [self.base.tensors[tensor], *(agent.tensors[tensor] for agent in self.agents.values())]

    def units(self, tensors: Sequence[str]) -> Iterator[Unit]:
        """Cut tensors into blocks, in order."""
        for name in tensors:
            numel = self.base.tensors[name].numel
            for start in range(0, numel, self.plan.block):
                yield Unit(name, start, min(numel, start + self.plan.block))

    def read(self, unit: Unit) -> tuple[Tensor, list[Tensor]]:
        """Read a unit of the base and of each agent; valid until the same thread reads the next."""
        infos = self.inputs(unit.tensor)
        if not hasattr(self._buffers, "inputs"):
            self._buffers.inputs = [
                byte_buffer(_buffer_bytes(checkpoint, self.plan.block), self.device)
                for checkpoint in (self.base, *self.agents.values())
            ]
        read = [
            self.files.read(info, unit.start, unit.stop, buffer).to(self.device, non_blocking=True)
            for info, buffer in zip(infos, self._buffers.inputs, strict=True)
        ]
        return read[0], read[1:]

    def run(self, stage: str, tensors: Sequence[str], work: Callable[[Unit], None]) -> None:
        """Work through the tensors' units on all threads, reading ahead and reporting progress."""
        units = list(self.units(tensors))
        total = sum(unit.stop - unit.start for unit in units)
        done = 0
        lock = threading.Lock()

        def step(indexed: tuple[int, Unit]) -> None:
            nonlocal done
            index, unit = indexed
            if index + _READ_AHEAD < len(units):
                ahead = units[index + _READ_AHEAD]
                for info in self.inputs(ahead.tensor):
                    self.files.will_read(info, ahead.start, ahead.stop)
            work(unit)
            with lock:
                done += unit.stop - unit.start
                if self._progress:
                    self._progress(Progress(stage, done, total))

        work_through(list(enumerate(units)), step, self.plan.threads)

    def kernel(self, function: BlockFunction, rows: int) -> "Kernel":
        """Return `function` as it is best run here; `rows` is the height of its coefficients."""
        kernel = Kernel(self, function, rows)
        self._kernels.append(kernel)
        return kernel

    def refuse_non_finite(self, unit: Unit) -> None:
        """Raise the error that names which input of a unit has a NaN or an infinity, or that the result overflowed."""
        base, agents = self.read(unit)
        for label, values in zip(
            ["the base", *(f"agent '{name}'" for name in self.agents)], [base, *agents], strict=True
        ):
            if not bool(torch.isfinite(values.float()).all()):
                raise InputError(
                    f"{label} has a NaN or an infinity in '{unit.tensor}'; its training diverged or its file is "
                    "damaged: use an earlier checkpoint"
                )
        raise InputError(f"the merged '{unit.tensor}' overflows {self.options.dtype}; use dtype bfloat16 or float32")


@dataclass
class Kernel:
    """A block function that runs compiled where a compiled form is at hand, else eagerly; same bytes either way."""

    session: Session
    function: BlockFunction
    rows: int
    _compiled: dict[compiled.Signature, compiled.Runner] = field(default_factory=dict)
    _builds: dict[compiled.Signature, "Popen[bytes]"] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        options = self.session.options
        if self.session.device.type != "cpu" or options.compile == "never":
            return
        for signature, elements in self._signatures().items():
            runner = compiled.load(signature, self.session.plan.threads)
            if runner is not None:
                self._compiled[signature] = runner
            elif options.compile == "always" or elements >= COMPILE_FROM_ELEMENTS:
                self._start(signature)

    def __call__(self, base: Tensor, agents: list[Tensor], arguments: Arguments) -> tuple[Tensor, Tensor]:
        """Return the function's tensor and its counts."""
        arguments = arguments.to(self.session.device)
        if base.device.type == "cuda":
            merged, counts = self.function(base, agents, arguments)
            return merged.cpu(), counts.cpu()
        runner = self._runner(base, agents) or self._eager
        return runner(base, agents, arguments)

    def close(self) -> None:
        """Stop compilers that are still at work."""
        for process in self._builds.values():
            process.kill()
            process.communicate()

    def _eager(self, base: Tensor, agents: Sequence[Tensor], arguments: Arguments) -> tuple[Tensor, Tensor]:
        merged: list[Tensor] = []
        total: Tensor | None = None
        for start in range(0, base.shape[0], EAGER_ELEMENTS):
            part = slice(start, start + EAGER_ELEMENTS)
            values, counts = self.function(base[part], [agent[part] for agent in agents], arguments.at(start))
            merged.append(values)
            total = counts if total is None else total + counts
        assert total is not None, "a unit has at least one element"
        return torch.cat(merged), total

    def _runner(self, base: Tensor, agents: list[Tensor]) -> compiled.Runner | None:
        if base.shape[0] < compiled.MIN_COMPILED:
            return None
        signature = compiled.Signature(self.function, base.dtype, tuple(agent.dtype for agent in agents), self.rows)
        if signature in self._builds:
            self._collect(signature)
        return self._compiled.get(signature)

    def _signatures(self) -> Counter[compiled.Signature]:
        work: Counter[compiled.Signature] = Counter()
        for name in self.session.floats:
            base, *agents = self.session.inputs(name)
            key = compiled.Signature(self.function, base.dtype, tuple(info.dtype for info in agents), self.rows)
            work[key] += base.numel
        return work

    def _start(self, signature: compiled.Signature) -> None:
        if compiled.compiler() is None:
            self._note("no C++ compiler found (g++ or clang++), so the merge runs eagerly: the same bytes, but slower")
            return
        try:
            self._builds[signature] = compiled.start_build(signature)
        except OSError as error:
            self._note(f"compiling failed ({error}), so the merge runs eagerly: the same bytes, but slower")

    def _collect(self, signature: compiled.Signature) -> None:
        with self._lock:
            process = self._builds.get(signature)
            if process is not None and self.session.options.compile == "always":
                process.wait()
            if process is None or process.poll() is None:
                return
            del self._builds[signature]
            errors = process.communicate()[1].decode(errors="replace").strip().splitlines()
            runner = compiled.load(signature, self.session.plan.threads) if process.returncode == 0 else None
            if runner is not None:
                self._compiled[signature] = runner
            else:
                reason = errors[-1] if errors else "its result differs from eager code"
                self._note(f"compiling failed ({reason}), so the merge runs eagerly: the same bytes, but slower")

    def _note(self, note: str) -> None:
        if note not in self.session.notes:
            self.session.notes.append(note)


def plan_memory(base: Checkpoint, agents: Mapping[str, Checkpoint], options: MergeOptions) -> MemoryPlan:
    """Choose block length and threads so that the process stays below its limit of memory, and forecast its peak.

    Raises:
        InputError: not even the smallest blocks fit; the message says how much would do.
    """
    resident = _resident_bytes()
    limit = options.memory or max(DEFAULT_MEMORY, resident + DEFAULT_ADDED_MEMORY)
    threads = options.threads or len(os.sched_getaffinity(0))
    least_threads = options.threads or 1
    largest = max((info.numel for info in base.tensors.values()), default=1)
    block = min(DEFAULT_BLOCK, max(MIN_BLOCK, largest))
    output = FLOAT_DTYPES[options.dtype].itemsize

    def forecast() -> int:
        # The inputs, the result, and the compiled function's copy of it.
        inputs = sum(_buffer_bytes(checkpoint, block) for checkpoint in (base, *agents.values()))
        results = 2 * output * min(block, largest)
        return resident + threads * (inputs + results + _EAGER_BYTES) + _FIXED_BYTES

    while forecast() > limit and (block > MIN_BLOCK or threads > least_threads):
        if block > MIN_BLOCK:
            block //= 2
        else:
            threads -= 1
    if forecast() > limit:
        needed = -(-forecast() // (1 << 20))
        raise InputError(f"--memory {limit / 2**20:.0f}MiB is too little: this merge needs {needed}MiB")
    return MemoryPlan(block, threads, forecast())


def _buffer_bytes(checkpoint: Checkpoint, block: int) -> int:
    """Return the bytes of the largest block of a checkpoint's tensors."""
    return max((min(info.numel, block) * info.dtype.itemsize for info in checkpoint.tensors.values()), default=0)


def _resident_bytes() -> int:
    fields = Path("/proc/self/statm").read_text(encoding="ascii").split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise InputError(f"unknown device '{name}'; use cpu, cuda or cuda:N") from error
    if device.type not in ("cpu", "cuda"):
        raise InputError(f"device '{name}' is not supported; use cpu, cuda or cuda:N")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise InputError(f"device '{name}' was asked for and this machine has no CUDA device; use --device cpu")
    return device
