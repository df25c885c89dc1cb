"""What all passes over the same checkpoints share: the agents' order, threads, memory and files."""

from __future__ import annotations

import importlib
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Protocol, Self, TypeVar

from rammerge.checkpoints.checkpoint import Checkpoint
from rammerge.checkpoints.family import Family
from rammerge.checkpoints.headers import TensorInfo
from rammerge.engine.buffers import pages
from rammerge.engine.compiling.loop import scratch_bytes
from rammerge.engine.gpu import Lanes, Room, page_locked
from rammerge.engine.input import Files
from rammerge.engine.memory import (
    EAGER_BYTES,
    EAGER_ELEMENT_BYTES,
    EAGER_ELEMENTS,
    MemoryPlan,
    Needs,
    plan_memory,
)
from rammerge.engine.options import MergeOptions, check_device
from rammerge.engine.output.chunks import Unit
from rammerge.engine.progress import OnProgress, Progress
from rammerge.engine.reader import Reader
from rammerge.errors import InputError
from rammerge.system.allocator import keep_freed_blocks
from rammerge.system.lazy import torch
from rammerge.system.threads import work_through

if TYPE_CHECKING:
    from torch import Tensor

_READ_AHEAD = 8


class Job(Protocol):
    """The work that a thread does in one go."""

    @property
    def units(self) -> Sequence[Unit]:
        """The units that are read for it."""
        ...


AnyJob = TypeVar("AnyJob", bound=Job)


class Session:
    """The inputs and the machinery of one merge. Use it as a context manager, because it owns open files.

    Attributes:
        base: the model that is merged into.
        members: views of the agents' checkpoints with the base's names and shapes, in the order of summation.
        agents: what is merged: by agent the members that it is the mean of, mostly one.
        options: see MergeOptions.
        outputs: how many models are written to files at the same time.
        device: where to compute.
        floats: names of the float tensors, or of those that are worked on.
        files: the open files of base and agents.
        reader: what reads them.
        notes: sentences about the run that the user should read.
        closing: closes at the end what the merge opened.
        room: memory of the GPU; None on a CPU.
    """

    def __init__(
        self,
        family: Family,
        options: MergeOptions,
        progress: OnProgress | None = None,
        outputs: int = 1,
        tensors: Sequence[str] | None = None,
    ) -> None:
        self.base = family.base
        self.members = family.members
        self.agents = family.agents
        self.floats = family.floats if tensors is None else tensors
        self.options = options
        self.outputs = outputs
        self.device = check_device(options.device)
        keep_freed_blocks()
        self.files = Files()
        self.notes: list[str] = []
        self.closing = ExitStack()
        self.closing.callback(self.files.close)
        self._progress = progress
        self.room = None if self.device == "cpu" else Room.of(options, self.device)
        self._lanes = None if self.device == "cpu" else Lanes.of(self.device)
        self._reserved = self._gpu_element = 0
        self._longest_row = 1
        self.reader = Reader(self.checkpoints, self.files, lambda: self.plan, self.device, self.lane)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.close()

    @cached_property
    def plan(self) -> MemoryPlan:
        """How the work is divided. It is made at the first use, which is after all code that computes was loaded.

        Raises:
            InputError: `options.memory` is too little.
        """
        reserved, element = self._reserved, self._gpu_element
        needs = Needs(self.checkpoints, self.options, self.outputs, reserved, self._longest_row, self.room, element)
        return plan_memory(needs)

    @property
    def checkpoints(self) -> tuple[Checkpoint, ...]:
        """The base, and the members."""
        return (self.base, *self.members.values())

    def reserve(self, nbytes: int) -> None:
        """Reserve `nbytes` for each thread, in addition to inputs and results. The largest request counts."""
        self._reserved = max(self._reserved, nbytes)

    def reserve_on_gpu(self, nbytes: int) -> None:
        """Reserve `nbytes` for each element of a block on the GPU. The largest request counts."""
        self._gpu_element = max(self._gpu_element, nbytes)

    def need_rows(self) -> None:
        """Make tiles long enough for the longest row."""
        self._longest_row = max((self.row(name) for name in self.floats), default=1)
        if self.device == "cpu":
            tile = max(self._longest_row, EAGER_ELEMENTS)
            self.reserve(max(tile * EAGER_ELEMENT_BYTES, scratch_bytes(len(self.agents), tile, self._longest_row)))

    def rows_of(self, unit: Unit, row: int) -> Unit:
        """Return the rows of `row` elements that a unit is a part of."""
        return Unit(unit.tensor, unit.start // row * row, -(-unit.stop // row) * row)

    def row(self, tensor: str) -> int:
        """Return how many elements a row of a tensor has: its last dimension, or all of a vector's elements."""
        shape = self.base.tensors[tensor].shape
        return max(1, shape[-1]) if shape else 1

    def load_torch(self) -> None:
        """Import torch for code that runs eagerly. The plan, which is made later, then counts its memory."""
        importlib.import_module("torch")
        self.reserve(EAGER_BYTES)

    def inputs(self, tensor: str) -> list[TensorInfo]:
        """Return where the base and each member store a tensor."""
        return [checkpoint.tensors[tensor] for checkpoint in self.checkpoints]

    @property
    def groups(self) -> tuple[int, ...]:
        """How many members each agent has; empty if each has one."""
        sizes = tuple(len(members) for members in self.agents.values())
        return sizes if max(sizes) > 1 else ()

    def blocks(self, tensors: Sequence[str]) -> Iterator[Unit]:
        """Cut tensors into blocks, in order."""
        for name in tensors:
            numel = self.base.tensors[name].numel
            for start in range(0, numel, self.plan.block):
                yield Unit(name, start, min(numel, start + self.plan.block))

    @contextmanager
    def lane(self) -> Iterator[None]:
        """Have the thread compute where the session does: on a GPU on a stream of its own, which is done at the end."""
        if self._lanes is None:
            yield
            return
        with self._lanes.one():
            yield

    def there(self, read: Tensor) -> Tensor:
        """Return elements that were read where they are computed. Call this in a lane."""
        return read if self._lanes is None else read.to(self.device, non_blocking=True)

    def result_memory(self, nbytes: int) -> memoryview:
        """Return aligned memory for what is computed."""
        return pages(nbytes) if self._lanes is None else page_locked(nbytes)

    def run(
        self,
        stage: str,
        jobs: Sequence[AnyJob],
        work: Callable[[AnyJob], None],
        *,
        threads: int | None = None,
        ahead: int = _READ_AHEAD,
    ) -> None:
        """Do jobs on `threads`, or the plan's. They start in their order, `ahead` jobs are read ahead, and reported."""
        elements = [sum(unit.stop - unit.start for unit in job.units) for job in jobs]
        total = sum(elements)
        done = 0
        lock = threading.Lock()

        def step(indexed: tuple[int, AnyJob]) -> None:
            nonlocal done
            index, job = indexed
            for later in jobs[index + ahead : index + ahead + 1]:
                for unit in later.units:
                    self.reader.will_read(unit)
            work(job)
            with lock:
                done += elements[index]
                if self._progress:
                    self._progress(Progress(stage, done, total))

        work_through(list(enumerate(jobs)), step, threads or self.plan.threads)

    def check_finite(self, unit: Unit) -> None:
        """Check that no input of a unit has a NaN or an infinity.

        Raises:
            InputError: names the first that has one.
        """
        labels = ["the base", *(f"agent '{name}'" for name in self.members)]
        for _, base, members in self.reader.tiles(unit):
            for label, values in zip(labels, [base, *members], strict=True):
                if not bool(torch.isfinite(values.float()).all()):
                    raise InputError(
                        f"{label} has a NaN or an infinity in '{unit.tensor}'; its training diverged or its file is "
                        "damaged: use an earlier checkpoint"
                    )

    def overflow(self, unit: Unit) -> InputError:
        """Return the error of a result with an infinity, though no input has one."""
        short = self.options.dtype == "float16"
        fix = "use dtype bfloat16 or float32" if short else "lower the method's scale, or the weights of agents"
        return InputError(f"the merged '{unit.tensor}' overflows {self.options.dtype}; {fix}")

    def refuse_non_finite(self, unit: Unit) -> None:
        """Raise the error that names which input of a unit has a NaN or an infinity, or that the result overflowed."""
        self.check_finite(unit)
        raise self.overflow(unit)
