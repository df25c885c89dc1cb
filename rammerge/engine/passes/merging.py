"""Pass 2: merge chunk by chunk into output shards. Finished shards of an earlier run are kept."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rammerge.checkpoints.layout import Layout, Shard
from rammerge.engine.blocks import Numbers, Rows, added
from rammerge.engine.output.chunks import Chunk, Piece, Unit, cut
from rammerge.engine.output.shards import Output, ShardRecord, ShardWriter, finished
from rammerge.engine.passes.merge_block import MergeBlock, MergeRule
from rammerge.engine.passes.statistics import Statistics
from rammerge.engine.running import Runner
from rammerge.engine.seeds import tensor_seeds
from rammerge.engine.session import Session
from rammerge.numerics.rounding import FLOAT_DTYPES


@dataclass
class _OpenShard:
    """A shard that is being written, the sum of its counts so far, and the number of missing chunks."""

    writer: ShardWriter
    counts: list[int]
    missing: int


def merge_runner(session: Session, rule: MergeRule) -> Runner:
    """Return the runner that merges by `rule`."""
    function = MergeBlock.of(rule, session.options.dtype, session.options.rounding)
    return Runner(session, function, rule.height, rule.by_rows)


def merge_shards(
    session: Session, rule: MergeRule, statistics: Statistics, runner: Runner, layout: Layout, directory: Path
) -> list[ShardRecord]:
    """Merge into the staging directory `directory`. Afterwards its `model` contains every shard of `layout`.

    Raises:
        InputError: a NaN or an infinity in an input, or a result outside the output dtype.
        OSError: the disk is full or failed.
    """
    records = {shard.file: record for shard in layout.shards if (record := finished(directory, shard))}
    size = session.plan.block * FLOAT_DTYPES[session.options.dtype].itemsize
    chunks = [chunk for shard in layout.shards if shard.file not in records for chunk in cut(shard, size)]
    merger = _Merger(session, rule, statistics, runner, directory, Output(size), chunks)
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
        runner: Runner,
        directory: Path,
        output: Output,
        chunks: Sequence[Chunk],
    ) -> None:
        self._session = session
        self._directory = directory
        self._output = output
        self.records: dict[str, ShardRecord] = {}
        self._threshold = rule.mask.threshold
        self._rows = _memoised(lambda tensor: rule.rows(tensor, statistics))
        self._runner = runner
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
        counts = [0] * self._runner.width
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
            return self._runner.run(unit, self._numbers(unit), [result])
        self._session.files.read(info, unit.start, result)
        return [0] * self._runner.width

    def _opened(self, shard: Shard) -> _OpenShard:
        with self._lock:
            if shard.file not in self._open:
                writer = ShardWriter(self._directory, shard, self._output)
                self._open[shard.file] = _OpenShard(writer, [0] * self._runner.width, self._chunks[shard.file])
            return self._open[shard.file]

    def _finish(self, shard: Shard, current: _OpenShard) -> None:
        self.records[shard.file] = current.writer.finish(current.counts)
        with self._lock:
            del self._open[shard.file]
        current.writer.close()

    def _numbers(self, unit: Unit) -> Numbers:
        seeds = tensor_seeds(self._session, unit.tensor)
        return Numbers(self._rows(unit.tensor), self._threshold, seeds, unit.start)


def _memoised(make: Callable[[str], Rows]) -> Callable[[str], Rows]:
    known: dict[str, Rows] = {}

    def get(tensor: str) -> Rows:
        if tensor not in known:
            known[tensor] = make(tensor)
        return known[tensor]

    return get
