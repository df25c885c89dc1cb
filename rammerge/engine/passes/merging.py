"""Pass 2: merge chunk by chunk into output shards. Finished shards of an earlier run are kept.

Several models may be merged at the same time. They have the same layout, and each input is read once for all of them.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from rammerge.checkpoints.layout import Shard
from rammerge.engine.blocks import Numbers, Rows, added
from rammerge.engine.computing import compute
from rammerge.engine.matrices.method import method_for
from rammerge.engine.output.chunks import Chunk, Piece, Unit, cut
from rammerge.engine.output.shards import Output, ShardRecord, ShardWriter, finished
from rammerge.engine.passes.merge_block import MergeRule, block_function
from rammerge.engine.passes.statistics import Statistics
from rammerge.engine.running import Runner, RunnerKey
from rammerge.engine.seeds import tensor_seeds
from rammerge.engine.session import Session
from rammerge.engine.work import Work
from rammerge.errors import InputError
from rammerge.numerics.rounding import FLOAT_DTYPES
from rammerge.system.threads import work_through

if TYPE_CHECKING:
    from torch import Tensor

# What merges the tensors of a key.
Runners = Mapping[RunnerKey, Runner]


def merge_runners(session: Session, rules: Sequence[MergeRule]) -> Runners:
    """Return what merges by all `rules`, of which one may do different things with different tensors."""
    tensors: dict[RunnerKey, dict[str, None]] = {}
    for rule in rules:
        for name in session.floats:
            tensors.setdefault(_key(session, rule.part(name), name), {})[name] = None
    return {key: Runner(session, *key, tuple(names)) for key, names in tensors.items()}


def _key(session: Session, part: MergeRule, tensor: str) -> RunnerKey:
    solved, options = _solved(session, part, tensor), session.options
    function = block_function(part, options.dtype, options.rounding, solved=solved)
    return function, part.height, part.by_rows and not solved


def _solved(session: Session, part: MergeRule, tensor: str) -> bool:
    """Return whether the update of a tensor was computed before."""
    return method_for(part.matrices, tensor, session.base.tensors[tensor].shape) is not None


@dataclass(frozen=True)
class _Way:
    """How the blocks of one tensor are merged."""

    runner: Runner
    rows: Rows
    threshold: float


@dataclass
class Merging:
    """A rule at work on the tensors of a session.

    Attributes:
        session: the inputs.
        rule: the rule.
        statistics: what its coefficients depend on.
        runners: of its block functions.
    """

    session: Session
    rule: MergeRule
    statistics: Statistics
    runners: Runners
    _ways: dict[str, _Way] = field(default_factory=dict)

    @property
    def width(self) -> int:
        """The number of counts of a block."""
        options = self.session.options
        return block_function(self.rule, options.dtype, options.rounding).counts(len(self.session.agents))

    def work(self, unit: Unit, result: memoryview | Tensor) -> tuple[Runner, Work]:
        """Return what merges a unit of a float tensor into `result`."""
        way = self._way(unit.tensor)
        numbers = Numbers(way.rows, way.threshold, tensor_seeds(self.session, unit.tensor), unit.start)
        return way.runner, Work(numbers, [result])

    def _way(self, tensor: str) -> _Way:
        if tensor not in self._ways:
            part = self.rule.part(tensor)
            rows = _coefficients(self.session, part, tensor, self.statistics)
            self._ways[tensor] = _Way(self.runners[_key(self.session, part, tensor)], rows, part.mask.threshold)
        return self._ways[tensor]


def _coefficients(session: Session, part: MergeRule, tensor: str, statistics: Statistics) -> Rows:
    """Return the coefficients of a tensor, with a column for the updates; zeros for a matrix, which has one."""
    if not part.matrices:
        return part.rows(tensor, statistics)
    if _solved(session, part, tensor):
        return [[0.0] * len(session.agents)] * part.height
    return [[*row, 0.0] for row in part.rows(tensor, statistics)]


def merge_shards(
    session: Session, mergings: Mapping[Path, Merging], shards: Sequence[Shard]
) -> dict[Path, list[ShardRecord] | InputError]:
    """Merge into staging directories. Afterwards the `model` in each contains every one of `shards`.

    A model whose result overflows the output dtype is given up, and the others are made.

    Args:
        session: the inputs.
        mergings: by staging directory what is merged into it.
        shards: of each model, or a part of them.

    Returns:
        By staging directory the records of all shards, or why there is no model.

    Raises:
        InputError: a NaN or an infinity in an input.
        OSError: the disk is full or failed.
    """
    size = session.plan.block * FLOAT_DTYPES[session.options.dtype].itemsize
    output = Output(size, len(mergings), session.result_memory)
    models = [_Model(merging, directory, output) for directory, merging in mergings.items()]
    for model in models:
        work_through(shards, model.look_up, session.plan.threads)
    jobs = [
        _Job(chunk, missing)
        for shard in shards
        if (missing := [model for model in models if shard.file not in model.records])
        for chunk in cut(shard, size)
    ]
    for model in models:
        model.left = Counter(job.chunk.shard.file for job in jobs if model in job.models)
    try:
        session.run("merge", jobs, lambda job: _work(session, output, job))
    finally:
        output.close()
        for model in models:
            model.close()
    return {model.directory: model.failure or [model.records[shard.file] for shard in shards] for model in models}


@dataclass(eq=False)
class _Model:
    """A model that is being written. After a `failure` its shards are no longer finished."""

    merging: Merging
    directory: Path
    output: Output
    failure: InputError | None = None
    records: dict[str, ShardRecord] = field(default_factory=dict)
    left: Counter[str] = field(default_factory=Counter)
    _open: dict[str, _OpenShard] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def look_up(self, shard: Shard) -> None:
        """Take up a shard that an earlier run finished."""
        if record := finished(self.directory, shard):
            self.records[shard.file] = record

    def fail(self, error: InputError) -> None:
        with self._lock:
            self.failure = self.failure or error
            for current in self._open.values():
                current.writer.abandon()

    def write(self, chunk: Chunk, memory: memoryview, counts: Sequence[int]) -> None:
        """Take over a chunk, and finish its shard if it is the shard's last one."""
        current = self._opened(chunk.shard)
        if self.failure is not None:  # after opening, because `fail` abandons what is open
            current.writer.abandon()
        current.writer.write(chunk, memory)
        with self._lock:
            current.counts = added(current.counts, counts)
            self.left[chunk.shard.file] -= 1
            last = not self.left[chunk.shard.file] and self.failure is None
        if last:
            self.records[chunk.shard.file] = current.writer.finish(current.counts)
            with self._lock:
                del self._open[chunk.shard.file]
            current.writer.close()

    def close(self) -> None:
        for current in self._open.values():
            current.writer.close()
        self._open.clear()

    def _opened(self, shard: Shard) -> _OpenShard:
        with self._lock:
            if shard.file not in self._open:
                writer = ShardWriter(self.directory, shard, self.output)
                self._open[shard.file] = _OpenShard(writer, [0] * self.merging.width)
            return self._open[shard.file]


@dataclass
class _OpenShard:
    """A shard that is being written, and the sum of its counts so far."""

    writer: ShardWriter
    counts: list[int]


@dataclass(frozen=True)
class _Job:
    """A chunk, which has the same place in each of the models that are still to be written."""

    chunk: Chunk
    models: Sequence[_Model]

    @property
    def units(self) -> Sequence[Unit]:
        return self.chunk.units


def _work(session: Session, output: Output, job: _Job) -> None:
    models = [model for model in job.models if model.failure is None]
    try:
        memories = [output.memory() for _ in models]
        counts = [[0] * model.merging.width for model in models]
        for memory in memories:
            memory[: len(job.chunk.header)] = job.chunk.header
        for piece in job.chunk.pieces if models else ():
            for at, found in enumerate(_compute(session, models, piece, memories)):
                counts[at] = added(counts[at], found)
        for model, memory, found in zip(models, memories, counts, strict=True):
            model.write(job.chunk, memory, found)
        output.wait_for_room()
    except BaseException:
        output.stop()
        raise


def _compute(
    session: Session, models: Sequence[_Model], piece: Piece, memories: Sequence[memoryview]
) -> list[list[int]]:
    unit, info = piece.unit, session.base.tensors[piece.unit.tensor]
    dtype = FLOAT_DTYPES[session.options.dtype] if info.dtype.is_floating_point else info.dtype
    results = [memory[piece.offset :][: (unit.stop - unit.start) * dtype.itemsize] for memory in memories]
    if info.dtype.is_floating_point:
        works = [model.merging.work(unit, result) for model, result in zip(models, results, strict=True)]
        return compute(session, unit, works, lambda at, error: models[at].fail(error))
    session.files.read(info, unit.start, results[0])
    for result in results[1:]:
        result[:] = results[0]
    return []
