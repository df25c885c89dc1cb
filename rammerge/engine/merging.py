"""Pass 2: merge block by block into output shards, resuming from those that are finished."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rammerge.engine.blocks import Arguments, MergeBlock
from rammerge.engine.counting import GlobalStatistics, NoStatistics
from rammerge.engine.kernel import Kernel, added
from rammerge.engine.layout import Layout, Shard
from rammerge.engine.seeds import tensor_seeds
from rammerge.engine.session import Session, Unit
from rammerge.engine.shards import ShardRecord, ShardWriter, finished
from rammerge.engine.stream import bytes_of
from rammerge.methods import METHODS, Params

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
    """A shard being written, with what its blocks have counted so far."""

    writer: ShardWriter
    counts: list[int]
    blocks: int


def merge_kernel(session: Session, name: str, params: Params) -> Kernel:
    """Return the kernel that merges by a method; asked for before the statistics, it can be compiled meanwhile."""
    agents = len(session.agents)
    rows = len(METHODS[name].coefficients(params, NoStatistics(agents), "", agents))
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
    todo = [shard for shard in layout.shards if shard.file not in records]
    merger = _Merger(session, name, params, statistics, kernel, directory, todo)
    try:
        session.run("merge", merger.tensors, merger.work)
        records.update(merger.records)
    finally:
        merger.abandon()
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
        shards: Sequence[Shard],
    ) -> None:
        self._session = session
        self._directory = directory
        self._places = {tensor.name: (shard, tensor) for shard in shards for tensor in shard.tensors}
        self.tensors = [tensor.name for shard in shards for tensor in shard.tensors]
        self.records: dict[str, ShardRecord] = {}
        agents = len(session.agents)
        self._threshold = torch.tensor(params.mask().threshold, dtype=torch.float32)
        self._coefficients: Callable[[str], Tensor] = _memoised(
            lambda tensor: torch.tensor(METHODS[name].coefficients(params, statistics, tensor, agents))
        )
        self._kernel = kernel
        self._open: dict[str, _OpenShard] = {}
        self._failed = False
        self._lock = threading.Lock()
        for shard in shards:
            if not any(tensor.nbytes for tensor in shard.tensors):
                self._finish(shard, self._opened(shard))

    def work(self, unit: Unit) -> None:
        try:
            self._work(unit)
        except BaseException:
            with self._lock:
                self._failed = True
                for current in self._open.values():
                    current.writer.stop()
            raise

    def _work(self, unit: Unit) -> None:
        shard, tensor = self._places[unit.tensor]
        current = self._opened(shard)
        is_float = self._session.base.tensors[unit.tensor].dtype.is_floating_point
        (merged,), counts = self._kernel.run(unit, self._arguments(unit)) if is_float else self._copied(unit)
        current.writer.write(tensor.offset + unit.start * tensor.dtype.itemsize, bytes_of(merged))
        with self._lock:
            current.counts = added(current.counts, counts)
            current.blocks -= 1
            last = current.blocks == 0
        if last:
            self._finish(shard, current)

    def _copied(self, unit: Unit) -> tuple[list[Tensor], list[int]]:
        # What is read lies in a buffer that the next tile fills.
        parts = [stored.cpu().clone() for _, stored, _ in self._session.tiles(unit)]
        return [torch.cat(parts)], [0] * self._kernel.width

    def abandon(self) -> None:
        for current in self._open.values():
            current.writer.abandon()
        self._open.clear()

    def _opened(self, shard: Shard) -> _OpenShard:
        with self._lock:
            if shard.file not in self._open:
                blocks = sum(1 for _ in self._session.units([tensor.name for tensor in shard.tensors]))
                writer = ShardWriter(self._directory, shard)
                self._open[shard.file] = _OpenShard(writer, [0] * self._kernel.width, blocks)
                if self._failed:
                    writer.stop()
            return self._open[shard.file]

    def _finish(self, shard: Shard, current: _OpenShard) -> None:
        with self._lock:
            del self._open[shard.file]
        self.records[shard.file] = current.writer.finish(current.counts)

    def _arguments(self, unit: Unit) -> Arguments:
        return Arguments(
            self._coefficients(unit.tensor),
            self._threshold,
            tensor_seeds(self._session, unit.tensor),
            torch.tensor(unit.start),
        )


def _memoised(make: Callable[[str], Tensor]) -> Callable[[str], Tensor]:
    known: dict[str, Tensor] = {}

    def get(tensor: str) -> Tensor:
        if tensor not in known:
            known[tensor] = make(tensor)
        return known[tensor]

    return get


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
