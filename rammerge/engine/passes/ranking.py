"""Counting magnitudes over groups of tensors, and finding the one of a rank in each group."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rammerge.engine.passes.magnitude_counts import FINE_BITS, Groups, Vectors, count_groups, counts_of
from rammerge.engine.passes.statistics import Scans, side_by_side

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from rammerge.engine.histogram import Histogram
    from rammerge.engine.passes.magnitude_counts import Counts
    from rammerge.engine.running import Runner
    from rammerge.engine.session import Session

# How many are ranked -> the rank that is looked for. The largest magnitude has rank 1; beyond the last is zero.
RankOf = Callable[[int], int]


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

    def magnitudes(self, groups: Groups, ranks: Sequence[RankOf]) -> Scans[list[dict[str | None, list[float]]]]:
        """Find the magnitudes that have some ranks in each group, for each of the function's tensors.

        The first read finds the place of each rank up to a bin of magnitudes. A second read counts these one by one,
        where the first has not told them apart.

        Args:
            groups: what is ranked together.
            ranks: what is looked for.

        Returns:
            For each of `ranks` the magnitudes by group; zeros for a group without elements.
        """
        coarse = yield from self._coarse(groups, ranks)
        places = ({group: found[at] for group, found in coarse.items()} for at in range(len(ranks)))
        return (yield from side_by_side([self._exact(groups, found) for found in places]))

    def _coarse(self, groups: Groups, ranks: Sequence[RankOf]) -> Scans[dict[str | None, list[list[Place]]]]:
        """Find by group, rank and tensor the places up to a bin, in the groups that have elements."""
        from rammerge.engine.histogram import MAX_BINS, Histogram

        def places(group: str | None, histograms: Sequence[Histogram]) -> list[list[Place]]:
            counts = counts_of(group, histograms)
            return [
                [_place(histograms, row, chosen, left) for row, (chosen, left) in enumerate(located(counts, rank))]
                for rank in ranks
            ]

        def empty(_: str | None) -> Histogram:
            return Histogram.empty([0] * len(self.vectors), MAX_BINS, FINE_BITS, keeps=True)

        return (yield from count_groups(self.session, self.runner, self.vectors, groups, empty, places))

    def _exact(
        self, groups: Groups, places: Mapping[str | None, Sequence[Place]]
    ) -> Scans[dict[str | None, list[float]]]:
        """Find the magnitudes in places that are known up to a bin."""
        from rammerge.engine.histogram import Histogram

        def exact(group: str | None, histograms: Sequence[Histogram]) -> list[Place]:
            return [
                place if place.is_exact else Place(place.pattern + locate(counts, place.rank)[0])
                for place, counts in zip(places[group], counts_of(group, histograms), strict=True)
            ]

        def empty(group: str | None) -> Histogram:
            return Histogram.empty([place.pattern for place in places[group]], 1 << FINE_BITS, 0)

        left = {key: groups[key] for key, found in places.items() if not all(place.is_exact for place in found)}
        counted = yield from count_groups(self.session, self.runner, self.vectors, left, empty, exact)
        none = [Place(0)] * len(self.vectors)
        return {key: [place.magnitude for place in {**places, **counted}.get(key, none)] for key in groups}


def _place(histograms: Sequence[Histogram], row: int, chosen: int, left: int) -> Place:
    """Return the place of a rank in a coarse bin: exact if all other patterns than the first of the bin are known."""
    import numpy as np

    first = chosen << FINE_BITS
    if any(histogram.filled[row] < 0 for histogram in histograms):
        return Place(first, left)
    others = np.concatenate([histogram.others[row, : histogram.filled[row]] for histogram in histograms])
    inside = np.sort(others[others >> FINE_BITS == chosen])
    return Place(int(inside[-left]) if left <= len(inside) else first)


def located(coarse: Counts, rank: RankOf) -> list[tuple[int, int]]:
    """Return for each vector the coarse bin that has a rank, and the rank within that bin."""
    from rammerge.engine.histogram import NOT_RANKED_PATTERN

    ranked = coarse.copy()
    ranked[:, NOT_RANKED_PATTERN >> FINE_BITS] = 0
    return [locate(counts, rank(int(counts.sum()))) for counts in ranked]


def locate(counts: NDArray[np.int64], rank: int) -> tuple[int, int]:
    """Return the bin of the `rank`-th largest value, and its rank within that bin."""
    import numpy as np

    from_top = counts[::-1].cumsum()
    index = min(int(np.searchsorted(from_top, rank)), len(counts) - 1)  # beyond the last rank is zero
    above = int(from_top[index - 1]) if index else 0
    return counts.shape[0] - 1 - index, rank - above
