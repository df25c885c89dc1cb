"""Pass 2: merge chunk by chunk into output shards, resuming from those that are finished."""

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rammerge.engine.blocks import MergeBlock, Numbers
from rammerge.engine.kernel import Kernel, added
from rammerge.engine.output.layout import Chunk, Layout, Piece, Shard, Unit, cut
from rammerge.engine.output.shards import Output, ShardRecord, ShardWriter, finished
from rammerge.engine.passes.counting import GlobalStatistics, rows_without_statistics
from rammerge.engine.seeds import tensor_seeds
from rammerge.engine.session import Session
from rammerge.methods import METHODS, Params
from rammerge.numerics.rounding import FLOAT_DTYPES

# A method's coefficients.
Rows = Sequence[Sequence[float]]

# Fewer indistinguishable elements than this share, and the method is worth its name in the output dtype.
DISTINCT_SHARE = 0.01


@dataclass(frozen=True)
class Survival:
    """How much of a merge the output dtype kept; integer counts over all float elements.

    Attributes:
        active: per agent, elements that it changed.
        unique: per agent, those that no other agent changed.
        survived: per agent, active elements whose merged value differs from the base's in the output dtype.
        changed: elements that the merge changed in float32.
        kept: elements whose merged value differs from the base's in the output dtype.
        distinct: elements where the method's result differs in the output dtype from its reference's (RAM for RAM+),
            zero where the method has none.
    """

    active: tuple[int, ...]
    unique: tuple[int, ...]
    survived: tuple[int, ...]
    changed: int
    kept: int
    distinct: int

    @classmethod
    def from_counts(cls, counts: Sequence[int], agents: int) -> "Survival":
        """Read the sums of the counts that `MergeBlock` returns."""
        active, unique, survived = (tuple(counts[start : start + agents]) for start in range(0, 3 * agents, agents))
        changed, kept, *distinct = counts[3 * agents :]
        return cls(active, unique, survived, changed, kept, sum(distinct))

    def to_json(self, agents: Sequence[str], *, has_reference: bool) -> dict[str, Any]:
        """Return the report with shares."""
        report: dict[str, Any] = {
            "agents": {
                name: {
                    "active": self.active[index],
                    "unique": self.unique[index],
                    "shared": self.active[index] - self.unique[index],
                    "survived": self.survived[index],
                    "survived_share": _share(self.survived[index], self.active[index]),
                }
                for index, name in enumerate(agents)
            },
            "changed": self.changed,
            "kept": self.kept,
            "kept_share": _share(self.kept, self.changed),
        }
        if has_reference:
            report["distinct_from_ram"] = self.distinct
            report["distinct_from_ram_share"] = _share(self.distinct, sum(self.unique))
        return report


@dataclass
class _OpenShard:
    """A shard being written, with what its chunks have counted so far, and how many are not there yet."""

    writer: ShardWriter
    counts: list[int]
    missing: int


def merge_kernel(session: Session, name: str, params: Params) -> Kernel:
    """Return the kernel that merges by a method; asked for before the statistics, it can be compiled meanwhile."""
    rows = len(rows_without_statistics(name, params, len(session.agents)))
    function = MergeBlock(name, params.mask().mode, session.options.dtype, session.options.rounding)
    return Kernel(session, function, rows)


def merge_shards(
    session: Session,
    name: str,
    params: Params,
    statistics: GlobalStatistics,
    kernel: Kernel,
    layout: Layout,
    directory: Path,
) -> list[ShardRecord]:
    """Merge into the staging directory `directory`, whose `model` afterwards holds every shard of `layout`.

    Raises:
        InputError: a NaN or an infinity in an input, or a result outside the output dtype.
        OSError: the disk is full or failed.
    """
    records = {shard.file: record for shard in layout.shards if (record := finished(directory, shard))}
    size = session.plan.block * FLOAT_DTYPES[session.options.dtype].itemsize
    chunks = [chunk for shard in layout.shards if shard.file not in records for chunk in cut(shard, size)]
    merger = _Merger(session, name, params, statistics, kernel, directory, Output(size), chunks)
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
        name: str,
        params: Params,
        statistics: GlobalStatistics,
        kernel: Kernel,
        directory: Path,
        output: Output,
        chunks: Sequence[Chunk],
    ) -> None:
        self._session = session
        self._directory = directory
        self._output = output
        self.records: dict[str, ShardRecord] = {}
        agents = len(session.agents)
        self._threshold = params.mask().threshold
        self._coefficients = _memoised(lambda tensor: METHODS[name].coefficients(params, statistics, tensor, agents))
        self._kernel = kernel
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
        counts = [0] * self._kernel.width
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
            return self._kernel.run(unit, self._numbers(unit), [result])
        self._session.files.read(info, unit.start, result)
        return [0] * self._kernel.width

    def _opened(self, shard: Shard) -> _OpenShard:
        with self._lock:
            if shard.file not in self._open:
                writer = ShardWriter(self._directory, shard, self._output)
                self._open[shard.file] = _OpenShard(writer, [0] * self._kernel.width, self._chunks[shard.file])
            return self._open[shard.file]

    def _finish(self, shard: Shard, current: _OpenShard) -> None:
        self.records[shard.file] = current.writer.finish(current.counts)
        with self._lock:
            del self._open[shard.file]
        current.writer.close()

    def _numbers(self, unit: Unit) -> Numbers:
        seeds = tensor_seeds(self._session, unit.tensor)
        return Numbers(self._coefficients(unit.tensor), self._threshold, seeds, unit.start)


def _memoised(make: Callable[[str], Rows]) -> Callable[[str], Rows]:
    known: dict[str, Rows] = {}

    def get(tensor: str) -> Rows:
        if tensor not in known:
            known[tensor] = make(tensor)
        return known[tensor]

    return get


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
