"""The pass that ranks changes by magnitude and finds the smallest magnitude that trimming keeps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar

from rammerge.engine.passes.magnitude_counts import (
    FINE_BITS,
    Groups,
    MagnitudeBlock,
    MagnitudeCounts,
    Ranked,
    Vectors,
    reserved_for,
)
from rammerge.engine.passes.ranking import Counting, Place, locate, located
from rammerge.engine.passes.statistics import Pass, Scans, Statistics, united
from rammerge.numerics.masks import Mask

if TYPE_CHECKING:
    from rammerge.engine.passes.magnitude_counts import Counts
    from rammerge.engine.running import Runner
    from rammerge.engine.session import Session

# The largest float32, in place of a magnitude that is not to be ranked. No change is that large.
NOT_RANKED = 3.4028234663852886e38

# (share, how many are ranked) -> the rank of the smallest magnitude that is kept. The largest has rank 1, and so has
# anything less; a rank beyond the last keeps everything.
Rank = Callable[[float, int], int]


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

    @property
    def vectors(self) -> Vectors:
        """The vectors to trim."""
        return Vectors(self.ranked, self.rows, self.mask, self.has_weights, self.ranks_one)

    def weighted(self, weights: Sequence[float]) -> KeptMagnitudes:
        """Return the same magnitudes of task vectors that are multiplied by their agents' weights."""
        return replace(self, rows=(*self.rows, tuple(weights)), has_weights=True)

    def function(self, agents: int) -> MagnitudeBlock:
        """Return the function of one block."""
        return self.vectors.function

    def reserved(self, agents: int) -> int:
        """Return the bytes that a thread needs to collect results: a histogram."""
        # A thread may begin a tensor while another still works on the one before.
        return (1 + self.by_tensor) * reserved_for(agents)

    def collect(self, session: Session, runner: Runner, known: Statistics) -> Scans[dict[str | None, list[float]]]:
        """Rank over the whole model or each tensor, exactly and in bounded memory.

        Counts of the whole model may be `known`.
        """
        coarse = None if self.by_tensor else known.find(self._coarse)
        fine = None if coarse is None else known.find(self._fine(coarse))
        if coarse is not None and fine is not None:
            return {None: self._kept(coarse, fine)}
        groups: Groups = {name: [name] for name in session.floats} if self.by_tensor else {None: session.floats}
        (found,) = yield from Counting(session, runner, self.vectors).magnitudes(groups, [self.rank_of])
        return found

    def counted(self, known: Statistics) -> Sequence[Pass[Any]]:
        """Return the pass itself if tensors are ranked separately, and else the counts that it needs next."""
        if self.by_tensor:
            return (self,)
        coarse = known.find(self._coarse)
        return (self._coarse if coarse is None else self._fine(coarse),)

    def join(self, results: Sequence[Mapping[str | None, list[float]]]) -> dict[str | None, list[float]]:
        """Return the magnitudes of all tensors, which were trimmed separately."""
        return united(results)

    def to_json(self, result: Mapping[str | None, list[float]]) -> list[Any]:
        """Return a result as plain JSON."""
        return list(result.items())

    def from_json(self, content: Any) -> dict[str | None, list[float]]:
        """Return the result that `to_json` wrote."""
        return dict(content)

    @property
    def _coarse(self) -> MagnitudeCounts:
        """The counts of the upper 16 bits of the magnitudes, whose order as integers is the order of their values."""
        return MagnitudeCounts(self.vectors, (0,) * len(self.vectors), FINE_BITS)

    def _fine(self, coarse: Counts) -> MagnitudeCounts:
        """The counts of the lower bits of the values in the coarse bins that have the wanted ranks."""
        return MagnitudeCounts(
            self.vectors, tuple(chosen << FINE_BITS for chosen, _ in located(coarse, self.rank_of)), 0
        )

    def rank_of(self, ranked: int) -> int:
        """Return the rank of the smallest magnitude that is kept of so many."""
        return max(1, self.rank(self.share, ranked))

    def _kept(self, coarse: Counts, fine: Counts) -> list[float]:
        """Return each agent's smallest magnitude that trimming keeps, from the counts of the whole model."""
        places = zip(fine, located(coarse, self.rank_of), strict=True)
        return [Place((chosen << FINE_BITS) + locate(counts, left)[0]).magnitude for counts, (chosen, left) in places]
