"""Pass 2: merge chunk by chunk into output shards. Finished shards of an earlier run are kept."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from rammerge.checkpoints.layout import Layout, Shard
from rammerge.engine.blocks import Arguments, Block, Numbers, Rows, Update, added, counted, health, read_block, total
from rammerge.engine.output.chunks import Chunk, Piece, Unit, cut
from rammerge.engine.output.shards import Output, ShardRecord, ShardWriter, finished
from rammerge.engine.passes.statistics import Pass, Statistics
from rammerge.engine.running import Runner
from rammerge.engine.seeds import tensor_seeds
from rammerge.engine.session import Session
from rammerge.numerics.dtypes import DTYPES, DType
from rammerge.numerics.masks import Mask, MaskMode
from rammerge.numerics.rounding import FLOAT_DTYPES, Rounding, cast
from rammerge.system.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor


class MergeRule(Protocol):
    """The engine's view of a merge rule, which is a method with settled parameters and agents (rammerge.rules)."""

    @property
    def kernel(self) -> Callable[[Block], Update]:
        """The formula, which is a pure function of a module."""

    @property
    def mask(self) -> Mask:
        """What counts as changed."""

    @property
    def passes(self) -> Sequence[Pass[Any]]:
        """The statistics that `rows` reads."""

    @property
    def height(self) -> int:
        """The number of rows of coefficients that the kernel reads."""

    @property
    def improves_on(self) -> str | None:
        """The method whose result the kernel also computes as a reference, if any."""

    def rows(self, tensor: str, statistics: Statistics) -> Rows:
        """Return the coefficients of a tensor."""


@dataclass(frozen=True)
class MergeBlock:
    """Merge a block and count the changes that survive the output dtype."""

    kernel: Callable[[Block], Update]
    has_reference: bool
    mask_mode: MaskMode
    dtype: str
    rounding: Rounding

    @classmethod
    def of(cls, rule: MergeRule, dtype: str, rounding: Rounding) -> MergeBlock:
        """Return the block function that merges by `rule`."""
        return cls(rule.kernel, rule.improves_on is not None, rule.mask.mode, dtype, rounding)

    def counts(self, agents: int) -> int:
        """Return the number of counts, without the health."""
        return 3 * agents + (3 if self.has_reference else 2)

    def results(self, agents: int) -> list[DType]:
        """Return the dtypes of the resulting tensors."""
        return [DTYPES[self.dtype]]

    def __call__(self, base: Tensor, agents: Sequence[Tensor], arguments: Arguments) -> tuple[list[Tensor], Tensor]:
        """Return the merged elements in the output dtype, and counts.

        The counts per agent are its changed elements, then those that no other agent changed, then those whose merged
        value differs from the base's after the cast. The counts of the block are the elements that the method changed,
        those that differ from the base after the cast and, where there is a reference, those that differ from it.
        """
        block = read_block(base, agents, self.mask_mode, arguments)
        update = self.kernel(block)
        rounded_base = base if base.dtype == DTYPES[self.dtype].torch_dtype else self._cast(block.base, arguments)
        merged = self._cast(_apply(block.base, update.delta), arguments)
        changed = _differs(merged, rounded_base)
        only_one = (total(block.masks) == 1.0).float()
        indicators = [
            *block.masks,
            *(mask * only_one for mask in block.masks),
            *(mask * changed for mask in block.masks),
            1.0 - (update.delta == 0.0).float(),
            changed,
        ]
        if self.has_reference:
            assert update.reference is not None, f"{self.kernel.__qualname__} returns no reference"
            indicators.append(_differs(merged, self._cast(_apply(block.base, update.reference), arguments)))
        return [merged], counted(indicators, health(merged))

    def _cast(self, values: Tensor, arguments: Arguments) -> Tensor:
        return cast(values, DTYPES[self.dtype].torch_dtype, self.rounding, arguments.seeds[0], arguments.start)


def _apply(base: Tensor, delta: Tensor) -> Tensor:
    # Adding a zero delta would turn a stored -0.0 into 0.0.
    return torch.where(delta == 0.0, base, base + delta)


def _differs(left: Tensor, right: Tensor) -> Tensor:
    return (left.float() != right.float()).float()


@dataclass
class _OpenShard:
    """A shard that is being written, the sum of its counts so far, and the number of missing chunks."""

    writer: ShardWriter
    counts: list[int]
    missing: int


def merge_runner(session: Session, rule: MergeRule) -> Runner:
    """Return the runner that merges by `rule`. If it is made before the statistics, it compiles while they run."""
    function = MergeBlock.of(rule, session.options.dtype, session.options.rounding)
    return Runner(session, function, rule.height)


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
