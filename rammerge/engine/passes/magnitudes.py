"""The pass that ranks changes by magnitude and finds the smallest magnitude that trimming keeps."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar

from rammerge.engine.blocks import Arguments, Block, Numbers, Rows, counted, health, read_block, total
from rammerge.engine.passes.statistics import Scan, Scans
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
    from rammerge.engine.passes.statistics import Statistics
    from rammerge.engine.running import Runner
    from rammerge.engine.session import Session

# A float32 magnitude has 31 bits. The upper 16 select a coarse bin, the lower 15 a fine bin in it.
_FINE_BITS = 15

# The largest float32, in place of a magnitude that is not to be ranked. No change is that large.
NOT_RANKED = 3.4028234663852886e38
_NOT_RANKED_BIN = 0x7F7FFFFF >> _FINE_BITS

Ranked = Callable[[Block], Sequence["Tensor"]]
# (share, how many are ranked) -> the rank of the smallest magnitude that is kept. The largest has rank 1, and so has
# anything less; a rank beyond the last keeps everything.
Rank = Callable[[float, int], int]


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


def at_least(share: float, ranked: int) -> int:
    """Return the rank that keeps the share `share`, and one more.

    The official code of TIES keeps every |x| that is at least the (d - int(d * share))-th smallest, which are
    int(d * share) + 1 elements.
    """
    return int(ranked * share) + 1


def all_but(share: float, ranked: int) -> int:
    """Return the rank that drops int(`ranked` * `share`), the smallest."""
    return ranked - int(ranked * share)


@dataclass(frozen=True)
class KeptMagnitudes:
    """Each agent's smallest magnitude that trimming keeps: of the whole model (key None), or by tensor.

    Attributes:
        ranked: makes the vectors to trim: a function from a block to float32 [n] per agent. Elements that are
            `NOT_RANKED` are left out.
        rows: the coefficients that `ranked` reads.
        share: the share of the ranked elements that `rank` takes.
        by_tensor: whether each tensor is trimmed separately.
        rank: what is kept of that share.
        mask: the mask that `ranked` reads.
        has_weights: whether the last of `rows` are factors of the task vectors.
        ranks_one: whether `ranked` makes one vector instead of one for each agent. The result then is one number.
    """

    ranked: Ranked
    rows: tuple[tuple[float, ...], ...]
    share: float
    by_tensor: bool
    rank: Rank = at_least
    mask: Mask = field(default_factory=Mask)
    has_weights: bool = False
    ranks_one: bool = False

    name: ClassVar[str] = "magnitudes"
    needs: ClassVar[Sequence[Any]] = ()

    @property
    def height(self) -> int:
        """How many rows of coefficients `ranked` reads."""
        return len(self.rows)

    def weighted(self, weights: Sequence[float]) -> KeptMagnitudes:
        """Return the same magnitudes of task vectors that are multiplied by their agents' weights."""
        return replace(self, rows=(*self.rows, tuple(weights)), has_weights=True)

    def function(self, agents: int) -> MagnitudeBlock:
        """Return the function of one block."""
        return MagnitudeBlock(self.ranked, self.mask.mode, self.has_weights, self.ranks_one)

    def reserved(self, agents: int) -> int:
        """Return the bytes that a thread needs to collect results: a histogram."""
        # This imports numpy, which no other pass needs. Importing it now lets the memory plan count it.
        from rammerge.engine.histogram import ROW_BYTES

        return agents * ROW_BYTES

    def collect(self, session: Session, runner: Runner, known: Statistics) -> Scans[dict[str | None, list[float]]]:
        """Rank over the whole model, exactly and in bounded memory."""
        if not self.by_tensor:
            return {None: (yield from self._thresholds(session, runner, session.floats))}
        found: dict[str | None, list[float]] = {}
        for name in session.floats:
            found[name] = yield from self._thresholds(session, runner, [name])
        return found

    def to_json(self, result: Mapping[str | None, list[float]]) -> list[Any]:
        """Return a result as plain JSON."""
        return list(result.items())

    def from_json(self, content: Any) -> dict[str | None, list[float]]:
        """Return the result that `to_json` wrote."""
        return dict(content)

    def _thresholds(self, session: Session, runner: Runner, tensors: Sequence[str]) -> Scans[list[float]]:
        """Return each agent's smallest magnitude that trimming over these tensors keeps.

        The first pass counts the upper 16 bits of the magnitudes, whose order as integers is the order of their values,
        and finds the bin of the wanted rank. The second pass counts the lower bits of the values in that bin.
        """
        import numpy as np

        from rammerge.engine.histogram import MAX_BINS

        vectors = 1 if self.ranks_one else len(session.agents)
        if not any(session.base.tensors[name].numel for name in tensors):
            return [0.0] * vectors
        count = _Counting(session, runner, self.rows, self.mask.threshold, tensors)
        coarse = yield from count.magnitudes([0] * vectors, MAX_BINS, _FINE_BITS)
        coarse[:, _NOT_RANKED_BIN] = 0
        ranks = [max(1, self.rank(self.share, int(counts.sum()))) for counts in coarse]
        bins, remaining = zip(*map(_locate, coarse, ranks), strict=True)
        firsts = [chosen << _FINE_BITS for chosen in bins]
        fine = yield from count.magnitudes(firsts, 1 << _FINE_BITS, 0)
        patterns = [
            first + _locate(counts, left)[0] for first, counts, left in zip(firsts, fine, remaining, strict=True)
        ]
        return [float(value) for value in np.array(patterns, dtype=np.int32).view(np.float32)]


@dataclass(frozen=True)
class _Counting:
    session: Session
    runner: Runner
    rows: Rows
    threshold: float
    tensors: Sequence[str]

    def magnitudes(self, firsts: Sequence[int], bins: int, shift: int) -> Scans[NDArray[np.int64]]:
        """Count each vector's magnitudes from the bit pattern `firsts` on, in bins of 2**shift; [vectors, bins]."""
        import numpy as np

        from rammerge.engine.histogram import Histogram

        own = threading.local()
        histograms: list[Histogram] = []

        def begin(unit: Unit) -> Work:
            if not hasattr(own, "histogram"):
                own.histogram = Histogram.empty(firsts, bins, shift)
                histograms.append(own.histogram)
            numbers = Numbers(self.rows, self.threshold, tensor_seeds(self.session, unit.tensor), unit.start)
            return Work(numbers, histogram=own.histogram)

        yield Scan("rank magnitudes", self.runner, self.tensors, begin, lambda *_: None)
        counts: NDArray[np.int64] = np.sum([histogram.counts() for histogram in histograms], axis=0)
        return counts


def _locate(counts: NDArray[np.int64], rank: int) -> tuple[int, int]:
    """Return the bin of the `rank`-th largest value, and its rank within that bin."""
    import numpy as np

    from_top = counts[::-1].cumsum()
    index = min(int(np.searchsorted(from_top, rank)), len(counts) - 1)  # beyond the last rank is zero
    above = int(from_top[index - 1]) if index else 0
    return counts.shape[0] - 1 - index, rank - above
