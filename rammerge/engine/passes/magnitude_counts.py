"""The pass that counts magnitudes of changes by their bit patterns, whose order is the order of the values."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from rammerge.engine.blocks import Arguments, Block, Numbers, counted, health, read_block, total
from rammerge.engine.passes.statistics import Scan, Scans, Statistics
from rammerge.engine.seeds import tensor_seeds
from rammerge.engine.work import Work
from rammerge.numerics.dtypes import DTYPES, DType
from rammerge.numerics.masks import Mask, MaskMode

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from rammerge.engine.histogram import Histogram
    from rammerge.engine.output.chunks import Unit
    from rammerge.engine.running import Runner
    from rammerge.engine.session import Session

    # int64 [vectors, bins].
    Counts = NDArray[np.int64]

# A float32 magnitude has 31 bits, whose order as integers is the order of the values. The upper 16 select a coarse bin,
# the lower 15 a fine bin in it.
FINE_BITS = 15

Ranked = Callable[[Block], Sequence["Tensor"]]
# The tensors over which magnitudes are counted together, by the name of the group.
Groups = Mapping[str | None, Sequence[str]]
R = TypeVar("R")


@dataclass(frozen=True)
class MagnitudeBlock:
    """Return the magnitudes of the vectors that `ranked` makes from a block."""

    ranked: Ranked
    mask_mode: MaskMode
    has_weights: bool = False
    ranks_one: bool = False

    def counts(self, agents: int) -> int:
        """Return the number of counts, without the health."""
        return 0

    def results(self, agents: int) -> list[DType]:
        """Return the dtypes of the resulting tensors: one per agent, or one."""
        return [DTYPES["float32"]] * (1 if self.ranks_one else agents)

    def __call__(self, base: Tensor, agents: Sequence[Tensor], arguments: Arguments) -> tuple[list[Tensor], Tensor]:
        """Return float32 [n] for each vector, and float64 [1], the health."""
        block = read_block(base, agents, self.mask_mode, arguments, weighted=self.has_weights)
        return [values.abs() for values in self.ranked(block)], counted([], health(total(block.deltas)))


@dataclass(frozen=True)
class Vectors:
    """The vectors whose magnitudes are counted.

    Attributes:
        ranked: makes them: a function from a block to float32 [n] per agent.
        rows: the coefficients that `ranked` reads.
        mask: the mask that `ranked` reads.
        has_weights: whether the last of `rows` are factors of the task vectors.
        ranks_one: whether `ranked` makes one vector instead of one for each agent.
    """

    ranked: Ranked
    rows: tuple[tuple[float, ...], ...]
    mask: Mask
    has_weights: bool
    ranks_one: bool

    def __len__(self) -> int:
        """Return their number."""
        return 1 if self.ranks_one else len(self.rows[0])

    def weighted(self, weights: Sequence[float]) -> Vectors:
        """Return those of task vectors that are multiplied by their agents' weights."""
        return replace(self, rows=(*self.rows, tuple(weights)), has_weights=True)

    def numbers(self, session: Session, unit: Unit) -> Numbers:
        """Return what the function of one block computes a unit with."""
        return Numbers(self.rows, self.mask.threshold, tensor_seeds(session, unit.tensor), unit.start)

    @property
    def function(self) -> MagnitudeBlock:
        """The function of one block."""
        return MagnitudeBlock(self.ranked, self.mask.mode, self.has_weights, self.ranks_one)


@dataclass(frozen=True)
class MagnitudeCounts:
    """How many magnitudes of each vector are in each bin of bit patterns, int64 [vectors, bins].

    Attributes:
        vectors: whose magnitudes are counted.
        firsts: the first pattern of each vector's bins.
        shift: binary logarithm of the number of patterns in a bin.
    """

    vectors: Vectors
    firsts: tuple[int, ...]
    shift: int

    name: ClassVar[str] = "magnitude_counts"
    needs: ClassVar[Sequence[Any]] = ()

    @property
    def height(self) -> int:
        """How many rows of coefficients the vectors are made with."""
        return len(self.vectors.rows)

    def weighted(self, weights: Sequence[float]) -> MagnitudeCounts:
        """Return the same counts for task vectors that are multiplied by their agents' weights."""
        return replace(self, vectors=self.vectors.weighted(weights))

    def function(self, agents: int) -> MagnitudeBlock:
        """Return the function of one block."""
        return self.vectors.function

    def reserved(self, agents: int) -> int:
        """Return the bytes that a thread needs to collect results: a histogram."""
        return reserved_for(agents)

    def collect(self, session: Session, runner: Runner, known: Statistics) -> Scans[Counts]:
        """Count over the model."""
        import numpy as np

        from rammerge.engine.histogram import Histogram

        def empty(_: str | None) -> Histogram:
            return Histogram.empty(self.firsts, self._bins, self.shift)

        found = yield from count_groups(session, runner, self.vectors, {None: session.floats}, empty, counts_of)
        return found.get(None, np.zeros((len(self.firsts), self._bins), np.int64))

    def counted(self, known: Statistics) -> Sequence[MagnitudeCounts]:
        """Return the pass itself."""
        return (self,)

    def join(self, results: Sequence[Counts]) -> Counts:
        """Return the counts of the whole model."""
        return sum(results[1:], results[0])

    def to_json(self, result: Counts) -> list[Any]:
        """Return a result as plain JSON: of which bins it is, and by vector the bins that are not empty."""
        filled = [counts.nonzero()[0] for counts in result]
        rows = [[at.tolist(), row[at].tolist()] for at, row in zip(filled, result, strict=True)]
        return [list(self.firsts), self.shift, rows]

    def from_json(self, content: Any) -> Counts:
        """Return the result that `to_json` wrote.

        Raises:
            ValueError: it is of other bins.
        """
        import numpy as np

        firsts, shift, rows = content
        if (tuple(firsts), shift) != (self.firsts, self.shift):
            raise ValueError(f"counts from {firsts} in bins of 2**{shift} are not those from {self.firsts}")
        result = np.zeros((len(rows), self._bins), np.int64)
        for row, (at, counts) in zip(result, rows, strict=True):
            row[at] = counts
        return result

    @property
    def _bins(self) -> int:
        from rammerge.engine.histogram import MAX_BINS

        return MAX_BINS if self.shift else 1 << FINE_BITS


def reserved_for(agents: int) -> int:
    """Return the bytes of a histogram, which a thread needs to collect results."""
    # This imports numpy, which no other pass needs. Importing it now lets the memory plan count it.
    from rammerge.engine.histogram import ROW_BYTES

    return agents * ROW_BYTES


def count_groups(
    session: Session,
    runner: Runner,
    vectors: Vectors,
    groups: Groups,
    empty: Callable[[str | None], Histogram],
    reduce: Callable[[str | None, Sequence[Histogram]], R],
) -> Scans[dict[str | None, R]]:
    """Count each group that has elements in a histogram for each thread, and reduce these once all of it is counted."""
    sizes = {name: session.base.tensors[name].numel for names in groups.values() for name in names}
    group_of = {name: group for group, names in groups.items() for name in names if sizes[name]}
    left = {group: sum(sizes[name] for name in names) for group, names in groups.items()}
    at_work: dict[str | None, dict[int, Histogram]] = {group: {} for group in groups}
    found: dict[str | None, R] = {}
    lock = threading.Lock()

    def begin(unit: Unit) -> Work:
        own, group = at_work[group_of[unit.tensor]], group_of[unit.tensor]
        thread = threading.get_ident()
        if thread not in own:
            own[thread] = empty(group)
        return Work(vectors.numbers(session, unit), histogram=own[thread])

    def end(unit: Unit, _: Work, __: list[int]) -> None:
        group = group_of[unit.tensor]
        with lock:
            left[group] -= unit.stop - unit.start
            if left[group]:
                return
        found[group] = reduce(group, list(at_work.pop(group).values()))

    if group_of:
        yield [Scan("rank magnitudes", runner, list(group_of), begin, end)]
    return {group: found[group] for group in groups if group in found}


def counts_of(_: str | None, histograms: Sequence[Histogram]) -> Counts:
    """Return the counts of all threads, int64 [vectors, bins]."""
    import numpy as np

    counts: Counts = np.sum([histogram.counts() for histogram in histograms], axis=0)
    return counts
