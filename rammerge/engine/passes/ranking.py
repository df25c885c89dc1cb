"""The pass that ranks task vectors by magnitude: what trimming keeps of them."""

import threading
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rammerge.engine.blocks import Numbers
from rammerge.engine.histogram import MAX_BINS, Histogram
from rammerge.engine.kernel import Kernel
from rammerge.engine.output.layout import Unit
from rammerge.engine.seeds import tensor_seeds
from rammerge.engine.session import Session
from rammerge.methods.elementwise.sparsified import TiesParams, kept_at_least

# A float32 magnitude has 31 bits: 16 choose a coarse bin, the 15 below a place in it.
_FINE_BITS = 15


class Ranking:
    """Finds the smallest magnitudes that trimming keeps: exactly, and in bounded memory.

    A first pass counts the upper 16 bits of the magnitudes, which as integers are in the order of their values, and
    finds the bin of the wanted rank; a second counts the lower bits inside that bin alone.
    """

    def __init__(self, session: Session, params: TiesParams, kernel: Kernel, rows: Sequence[Sequence[float]]) -> None:
        """Rank what `kernel`, of a MagnitudeBlock, makes with the coefficients `rows`."""
        self._session, self._params, self._kernel, self._rows = session, params, kernel, rows

    def all_thresholds(self) -> dict[str | None, list[float]]:
        """Return each agent's, of the whole model (key None) or per tensor."""
        if self._params.scope == "global":
            return {None: self.thresholds(self._session.floats)}
        return {name: self.thresholds([name]) for name in self._session.floats}

    def thresholds(self, tensors: Sequence[str]) -> list[float]:
        """Return each agent's smallest magnitude that trimming over these tensors keeps."""
        numel, agents = sum(self._session.base.tensors[name].numel for name in tensors), len(self._session.agents)
        if not numel:
            return [0.0] * agents
        rank = kept_at_least(self._params.density, numel)
        coarse = self._counts(tensors, [0] * agents, MAX_BINS, _FINE_BITS)
        bins, remaining = zip(*(_locate(counts, rank) for counts in coarse), strict=True)
        firsts = [chosen << _FINE_BITS for chosen in bins]
        fine = self._counts(tensors, firsts, 1 << _FINE_BITS, 0)
        patterns = [
            first + _locate(counts, left)[0] for first, counts, left in zip(firsts, fine, remaining, strict=True)
        ]
        return [float(value) for value in np.array(patterns, dtype=np.int32).view(np.float32)]

    def _counts(self, tensors: Sequence[str], firsts: Sequence[int], bins: int, shift: int) -> NDArray[np.int64]:
        """Count each agent's magnitudes from the pattern `firsts` on, in bins of 2**shift; [agents, bins]."""
        session, own = self._session, threading.local()
        histograms: list[Histogram] = []

        def work(unit: Unit) -> None:
            if not hasattr(own, "histogram"):
                own.histogram = Histogram.empty(firsts, bins, shift)
                histograms.append(own.histogram)
            seeds = tensor_seeds(session, unit.tensor)
            self._kernel.run(unit, Numbers(self._rows, 0.0, seeds, unit.start), histogram=own.histogram)

        session.run("rank magnitudes", list(session.blocks(tensors)), work)
        counts: NDArray[np.int64] = np.sum([histogram.counts() for histogram in histograms], axis=0)
        return counts


def _locate(counts: NDArray[np.int64], rank: int) -> tuple[int, int]:
    """Return the bin that holds the `rank`-th largest value, and its rank inside that bin."""
    from_top = counts[::-1].cumsum()
    index = int(np.searchsorted(from_top, rank))
    above = int(from_top[index - 1]) if index else 0
    return counts.shape[0] - 1 - index, rank - above
