"""Running a block function eagerly on the tiles of a unit, in steps that fit into a core's cache."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rammerge.engine.blocks import Arguments, BlockFunction, added, averaged

if TYPE_CHECKING:
    from torch import Tensor

    from rammerge.engine.histogram import Histogram
    from rammerge.engine.output.chunks import Unit
    from rammerge.engine.sums import GrainSums


@dataclass
class EagerCall:
    """A block function, and what it computes with. It runs on the tiles of a unit, one after the other.

    Attributes:
        function: the block function.
        groups: see Session.
        unit: the elements whose results are kept.
        arguments: of the unit's first element.
        step: how many elements are computed together.
        counts: the function's counts, summed over the tiles so far, and the health.
        filled: gets the function's tensors, one element for each of the unit's.
        histogram: counts the tensors instead.
        sums: sums the tensors instead.
        by_rows: whether tiles are whole rows, of which some elements may be outside of the unit.
        row: how many elements a row of such a tile has.
    """

    function: BlockFunction
    groups: tuple[int, ...]
    unit: Unit
    arguments: Arguments
    step: int
    counts: list[float]
    filled: Sequence[Tensor]
    histogram: Histogram | None = None
    sums: GrainSums | None = None
    by_rows: bool = False
    row: int = 1

    def run(self, start: int, base: Tensor, members: Sequence[Tensor]) -> None:
        """Compute a tile whose first element has the index `start` in its tensor."""
        step = self.step or len(base)
        for at in range(0, len(base), step):
            part = slice(at, at + step)
            self._run_step(start + at, base[part], [member[part] for member in members])

    def _run_step(self, first: int, base: Tensor, members: Sequence[Tensor]) -> None:
        unit, wanted = self.unit, None
        if self.by_rows:
            wanted = slice(max(unit.start, first) - first, min(first + len(base), unit.stop) - first)
        arguments = self.arguments.at(first - unit.start, self.row, wanted)
        agents = averaged(base, members, self.groups) if self.groups else members
        made, counts = self.function(base, agents, arguments)
        place = max(unit.start, first) - unit.start
        for result, values in zip(self.filled, made, strict=False):
            # From a GPU this does not wait. Whoever asked for the tile does (Session.lane).
            result[place : place + len(values)].copy_(values, non_blocking=True)
        self.counts = added(self.counts, counts.tolist())
        if self.sums is not None:
            self.sums.add(made)
        if self.histogram is not None and math.isfinite(self.counts[-1]):
            self.histogram.add(made)
