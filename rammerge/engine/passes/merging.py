"""Pass 2: merge chunk by chunk into output shards. Finished shards of an earlier run are kept."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rammerge.checkpoints.layout import Layout, Shard
from rammerge.engine.blocks import BlockFunction, Numbers, Rows, added
from rammerge.engine.matrices.method import method_for
from rammerge.engine.output.chunks import Chunk, Piece, cut
from rammerge.engine.output.shards import Output, ShardRecord, ShardWriter, finished
from rammerge.engine.passes.merge_block import MergeRule, block_function
from rammerge.engine.passes.statistics import Statistics
from rammerge.engine.running import Runner
from rammerge.engine.seeds import tensor_seeds
from rammerge.engine.session import Session
from rammerge.numerics.rounding import FLOAT_DTYPES


@dataclass(frozen=True)
class _Way:
    """How the blocks of one tensor are merged."""

    runner: Runner
    rows: Rows
    threshold: float


@dataclass
class _OpenShard:
    """A shard that is being written, the sum of its counts so far, and the number of missing chunks."""

    writer: ShardWriter
    counts: list[int]
    missing: int


# What merges the tensors whose block function is the key.
Runners = Mapping[BlockFunction, Runner]


def merge_runners(session: Session, rule: MergeRule) -> Runners:
    """Return what merges by `rule`: more than one runner if it does different things with different tensors."""
    parts: dict[BlockFunction, MergeRule] = {}
    tensors: dict[BlockFunction, list[str]] = {}
    for name in session.floats:
        part = rule.part(name)
        function = _function(session, part, name)
        parts[function] = part
        tensors.setdefault(function, []).append(name)
    return {
        function: Runner(
            session, function, part.height, _by_rows(session, part, tensors[function][0]), tensors[function]
        )
        for function, part in parts.items()
    }


def _function(session: Session, part: MergeRule, tensor: str) -> BlockFunction:
    return block_function(part, session.options.dtype, session.options.rounding, solved=_solved(session, part, tensor))


def _solved(session: Session, part: MergeRule, tensor: str) -> bool:
    """Return whether the update of a tensor was computed before."""
    return method_for(part.matrices, tensor, session.base.tensors[tensor].shape) is not None


def _by_rows(session: Session, part: MergeRule, tensor: str) -> bool:
    return part.by_rows and not _solved(session, part, tensor)


def merge_shards(
    session: Session, rule: MergeRule, statistics: Statistics, runners: Runners, layout: Layout, directory: Path
) -> list[ShardRecord]:
    """Merge into the staging directory `directory`. Afterwards its `model` contains every shard of `layout`.

    Raises:
        InputError: a NaN or an infinity in an input, or a result outside the output dtype.
        OSError: the disk is full or failed.
    """
    records = {shard.file: record for shard in layout.shards if (record := finished(directory, shard))}
    size = session.plan.block * FLOAT_DTYPES[session.options.dtype].itemsize
    chunks = [chunk for shard in layout.shards if shard.file not in records for chunk in cut(shard, size)]
    merger = _Merger(session, rule, statistics, runners, directory, Output(size), chunks)
    try:
        session.run("merge", chunks, merger.work)
        records.update(merger.records)
    finally:
        merger.close()
    return [records[shard.file] for shard in layout.shards]


class _Merger:
    def __init__(
        self,
        session: Session,
        rule: MergeRule,
        statistics: Statistics,
        runners: Runners,
        directory: Path,
        output: Output,
        chunks: Sequence[Chunk],
    ) -> None:
        self._session = session
        self._directory = directory
        self._output = output
        self.records: dict[str, ShardRecord] = {}
        self._rule = rule
        self._statistics = statistics
        self._runners = runners
        self._width = block_function(rule, session.options.dtype, session.options.rounding).counts(len(session.agents))
        self._ways: dict[str, _Way] = {}
        self._chunks = Counter(chunk.shard.file for chunk in chunks)
        self._open: dict[str, _OpenShard] = {}
        self._lock = threading.Lock()

    def work(self, chunk: Chunk) -> None:
        try:
            self._work(chunk)
        except BaseException:
            self._output.stop()
            raise

    def close(self) -> None:
        self._output.close()
        for current in self._open.values():
            current.writer.close()
        self._open.clear()

    def _work(self, chunk: Chunk) -> None:
        current = self._opened(chunk.shard)
        memory = self._output.memory()
        memory[: len(chunk.header)] = chunk.header
        counts = [0] * self._width
        for piece in chunk.pieces:
            counts = added(counts, self._compute(piece, memory))
        current.writer.write(chunk, memory)
        with self._lock:
            current.counts = added(current.counts, counts)
            current.missing -= 1
            last = current.missing == 0
        if last:
            self._finish(chunk.shard, current)

    def _compute(self, piece: Piece, memory: memoryview) -> list[int]:
        unit, info = piece.unit, self._session.base.tensors[piece.unit.tensor]
        dtype = FLOAT_DTYPES[self._session.options.dtype] if info.dtype.is_floating_point else info.dtype
        result = memory[piece.offset :][: (unit.stop - unit.start) * dtype.itemsize]
        if info.dtype.is_floating_point:
            way = self._way(unit.tensor)
            seeds = tensor_seeds(self._session, unit.tensor)
            return way.runner.run(unit, Numbers(way.rows, way.threshold, seeds, unit.start), [result])
        self._session.files.read(info, unit.start, result)
        return [0] * self._width

    def _opened(self, shard: Shard) -> _OpenShard:
        with self._lock:
            if shard.file not in self._open:
                writer = ShardWriter(self._directory, shard, self._output)
                self._open[shard.file] = _OpenShard(writer, [0] * self._width, self._chunks[shard.file])
            return self._open[shard.file]

    def _finish(self, shard: Shard, current: _OpenShard) -> None:
        self.records[shard.file] = current.writer.finish(current.counts)
        with self._lock:
            del self._open[shard.file]
        current.writer.close()

    def _way(self, tensor: str) -> _Way:
        if tensor not in self._ways:
            part = self._rule.part(tensor)
            runner = self._runners[_function(self._session, part, tensor)]
            self._ways[tensor] = _Way(
                runner, _coefficients(self._session, part, tensor, self._statistics), part.mask.threshold
            )
        return self._ways[tensor]


def _coefficients(session: Session, part: MergeRule, tensor: str, statistics: Statistics) -> Rows:
    """Return the coefficients of a tensor, with a column for the updates; zeros for a matrix, which has one."""
    if not part.matrices:
        return part.rows(tensor, statistics)
    if _solved(session, part, tensor):
        return [[0.0] * len(session.agents)] * part.height
    return [[*row, 0.0] for row in part.rows(tensor, statistics)]
