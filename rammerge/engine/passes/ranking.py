"""Counting magnitudes over groups of tensors, and finding the one of a rank in each group."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from rammerge.engine.passes.magnitude_counts import FINE_BITS, Vectors
from rammerge.engine.passes.statistics import Scan, Scans
from rammerge.engine.work import Work

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from rammerge.engine.histogram import Histogram
    from rammerge.engine.output.chunks import Unit
    from rammerge.engine.running import Runner
    from rammerge.engine.session import Session

# The tensors over which magnitudes are ranked together, by the name of the group.
Groups = Mapping[str | None, Sequence[str]]
R = TypeVar("R")


@dataclass(frozen=True)
class Place:
    """Where the magnitude of a rank is.

    Attributes:
        pattern: its bits, or the first of the coarse bin that it is in.
        rank: its rank among those of the bin, the largest being the first; 0 if `pattern` is the magnitude itself.
    """

    pattern: int
    rank: int = 0

    @property
    def is_exact(self) -> bool:
        """Whether the magnitude itself is known."""
        return not self.rank

    @property
    def magnitude(self) -> float:
        """The magnitude."""
        import numpy as np

        return float(np.uint32(self.pattern).view(np.float32))


@dataclass(frozen=True)
class Counting:
    """Counts what a block function makes of groups of tensors.

    Attributes:
        session: the inputs.
        runner: of the block function, whose tensors are magnitudes.
        vectors: what it makes.
    """

    session: Session
    runner: Runner
    vectors: Vectors

    def coarse(self, groups: Groups, rank: Callable[[int], int]) -> Scans[dict[str | None, list[Place]]]:
        """Find the place of a rank in each group that has elements, for each of the function's tensors.

        Args:
            groups: what is ranked together.
            rank: (how many are ranked) -> the rank. The largest magnitude has rank 1; beyond the last is zero.
        """
        from rammerge.engine.histogram import MAX_BINS, NOT_RANKED_PATTERN, Histogram

        def places(_: str | None, histograms: Sequence[Histogram]) -> list[Place]:
            coarse = _added(histograms)
            coarse[:, NOT_RANKED_PATTERN >> FINE_BITS] = 0
            return [_place(histograms, row, counts, rank(int(counts.sum()))) for row, counts in enumerate(coarse)]

        def empty(_: str | None) -> Histogram:
            return Histogram.empty([0] * len(self.vectors), MAX_BINS, FINE_BITS, keeps=True)

        return (yield from self._count(groups, empty, places))

    def fine(
        self, groups: Groups, places: Mapping[str | None, Sequence[Place]]
    ) -> Scans[dict[str | None, list[Place]]]:
        """Find the exact places in groups, from those that `coarse` found."""
        from rammerge.engine.histogram import Histogram

        def exact(group: str | None, histograms: Sequence[Histogram]) -> list[Place]:
            return [
                place if place.is_exact else Place(place.pattern + locate(counts, place.rank)[0])
                for place, counts in zip(places[group], _added(histograms), strict=True)
            ]

        def empty(group: str | None) -> Histogram:
            return Histogram.empty([place.pattern for place in places[group]], 1 << FINE_BITS, 0)

        return (yield from self._count(groups, empty, exact))

    def _count(
        self,
        groups: Groups,
        empty: Callable[[str | None], Histogram],
        reduce: Callable[[str | None, Sequence[Histogram]], R],
    ) -> Scans[dict[str | None, R]]:
        """Count each group in a histogram for each thread, and reduce these as soon as all of the group is counted."""
        sizes = {name: self.session.base.tensors[name].numel for names in groups.values() for name in names}
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
            return Work(self.vectors.numbers(self.session, unit), histogram=own[thread])

        def end(unit: Unit, _: Work, __: list[int]) -> None:
            group = group_of[unit.tensor]
            with lock:
                left[group] -= unit.stop - unit.start
                if left[group]:
                    return
            found[group] = reduce(group, list(at_work.pop(group).values()))

        if group_of:
            yield Scan("rank magnitudes", self.runner, list(group_of), begin, end)
        return {group: found[group] for group in groups if group in found}


def _added(histograms: Sequence[Histogram]) -> NDArray[np.int64]:
    """Return the counts of all threads, [vectors, bins]."""
    import numpy as np

    counts: NDArray[np.int64] = np.sum([histogram.counts() for histogram in histograms], axis=0)
    return counts


def _place(histograms: Sequence[Histogram], row: int, counts: NDArray[np.int64], rank: int) -> Place:
    """Return the place of a rank: exact if all other patterns than the first of its bin are known."""
    import numpy as np

    chosen, left = locate(counts, rank)
    first = chosen << FINE_BITS
    if any(histogram.filled[row] < 0 for histogram in histograms):
        return Place(first, left)
    others = np.concatenate([histogram.others[row, : histogram.filled[row]] for histogram in histograms])
    inside = np.sort(others[others >> FINE_BITS == chosen])
    return Place(int(inside[-left]) if left <= len(inside) else first)


def locate(counts: NDArray[np.int64], rank: int) -> tuple[int, int]:
    """Return the bin of the `rank`-th largest value, and its rank within that bin."""
    import numpy as np

    from_top = counts[::-1].cumsum()
    index = min(int(np.searchsorted(from_top, rank)), len(counts) - 1)  # beyond the last rank is zero
    above = int(from_top[index - 1]) if index else 0
    return counts.shape[0] - 1 - index, rank - above
