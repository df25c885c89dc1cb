"""The pass that finds both the smallest and the largest magnitude that trimming keeps of each tensor, in one count."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from rammerge.engine.passes.magnitude_counts import Groups, MagnitudeBlock
from rammerge.engine.passes.magnitudes import KeptMagnitudes
from rammerge.engine.passes.ranking import Counting
from rammerge.engine.passes.statistics import Scans, Statistics, united

if TYPE_CHECKING:
    from rammerge.engine.running import Runner
    from rammerge.engine.session import Session

# By tensor the smallest and the largest magnitude of each vector.
Ranges = dict[str | None, tuple[list[float], list[float]]]


@dataclass(frozen=True)
class KeptRange:
    """Each agent's smallest and largest magnitude that trimming keeps, by tensor.

    Attributes:
        least: the question of the smallest.
        most: the question of the largest, about the same vectors.
    """

    least: KeptMagnitudes
    most: KeptMagnitudes

    name: ClassVar[str] = "kept_range"
    needs: ClassVar[Sequence[Any]] = ()

    @property
    def height(self) -> int:
        """How many rows of coefficients the vectors are made with."""
        return self.least.height

    def weighted(self, weights: Sequence[float]) -> KeptRange:
        """Return the same range for task vectors that are multiplied by their agents' weights."""
        return KeptRange(self.least.weighted(weights), self.most.weighted(weights))

    def function(self, agents: int) -> MagnitudeBlock:
        """Return the function of one block."""
        return self.least.function(agents)

    def reserved(self, agents: int) -> int:
        """Return the bytes that a thread needs to collect results; the second read counts in small histograms."""
        return self.least.reserved(agents)

    def collect(self, session: Session, runner: Runner, known: Statistics) -> Scans[Ranges]:
        """Rank over each tensor, exactly and in bounded memory."""
        groups: Groups = {name: [name] for name in session.floats}
        counting = Counting(session, runner, self.least.vectors)
        least, most = yield from counting.magnitudes(groups, [self.least.rank_of, self.most.rank_of])
        return {name: (least[name], most[name]) for name in groups}

    def counted(self, known: Statistics) -> Sequence[KeptRange]:
        """Return the pass itself."""
        return (self,)

    def join(self, results: Sequence[Ranges]) -> Ranges:
        """Return the ranges of all tensors."""
        return united(results)

    def to_json(self, result: Ranges) -> list[Any]:
        """Return a result as plain JSON."""
        return list(result.items())

    def from_json(self, content: Any) -> Ranges:
        """Return the result that `to_json` wrote."""
        return {name: (least, most) for name, (least, most) in content}
