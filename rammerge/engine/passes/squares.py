"""The pass that sums the squares of what a selection keeps of each task vector, per tensor, in float64."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from rammerge.engine.blocks import Arguments, Block, Rows, counted, health, read_block, total
from rammerge.engine.passes.magnitudes import KeptMagnitudes
from rammerge.engine.passes.statistics import Scans, count_and_sum_by_tensor, united
from rammerge.numerics.dtypes import DTYPES, DType
from rammerge.numerics.masks import MaskMode

if TYPE_CHECKING:
    from torch import Tensor

    from rammerge.engine.passes.statistics import Statistics
    from rammerge.engine.running import Runner
    from rammerge.engine.session import Session

Selected = Callable[[Block], Sequence["Tensor"]]


@dataclass(frozen=True)
class SquareBlock:
    """Square what `selected` keeps of the task vectors of a block."""

    selected: Selected
    mask_mode: MaskMode
    has_weights: bool

    def counts(self, agents: int) -> int:
        """Return the number of counts, without the health."""
        return 0

    def results(self, agents: int) -> list[DType]:
        """Return the dtypes of the resulting tensors, which are summed."""
        return [DTYPES["float64"]] * agents

    def __call__(self, base: Tensor, agents: Sequence[Tensor], arguments: Arguments) -> tuple[list[Tensor], Tensor]:
        """Return the squares, which are exact, float64 [n] for each agent, and the health."""
        block = read_block(base, agents, self.mask_mode, arguments, weighted=self.has_weights)
        exact = [values.double() for values in self.selected(block)]
        return [values * values for values in exact], counted([], health(total(block.deltas)))


@dataclass(frozen=True)
class SelectedSquares:
    """Each agent's sum of squares of what a selection keeps, by tensor.

    Attributes:
        selected: makes float32 [n] per agent from a block. It reads the selection's result from the first row of
            coefficients.
        selection: the pass, named before, that finds a number for each tensor.
    """

    selected: Selected
    selection: KeptMagnitudes

    name: ClassVar[str] = "squares"

    @property
    def height(self) -> int:
        """How many rows of coefficients the block function reads."""
        return 1 + self.selection.has_weights

    @property
    def needs(self) -> Sequence[KeptMagnitudes]:
        """The pass that finds what is selected."""
        return (self.selection,)

    def weighted(self, weights: Sequence[float]) -> SelectedSquares:
        """Return the same squares of task vectors that are multiplied by their agents' weights."""
        return replace(self, selection=self.selection.weighted(weights))

    def function(self, agents: int) -> SquareBlock:
        """Return the function of one block."""
        return SquareBlock(self.selected, self.selection.mask.mode, self.selection.has_weights)

    def reserved(self, agents: int) -> int:
        """Return the bytes that a thread needs to collect results: hardly any."""
        return 0

    def collect(self, session: Session, runner: Runner, known: Statistics) -> Scans[dict[str, list[float]]]:
        """Sum over the tensors."""
        limits, agents = known[self.selection], len(session.agents)

        def rows(tensor: str) -> Rows:
            first = [limits[tensor][0]] * agents
            return [first, self.selection.rows[-1]] if self.selection.has_weights else [first]

        threshold = self.selection.mask.threshold
        found = yield from count_and_sum_by_tensor(session, "square task vectors", runner, threshold, rows)
        return {name: sums for name, (_, sums) in found.items()}

    def counted(self, known: Statistics) -> Sequence[SelectedSquares]:
        """Return the pass itself."""
        return (self,)

    def join(self, results: Sequence[Mapping[str, list[float]]]) -> dict[str, list[float]]:
        """Return the squares of the whole model."""
        return united(results)

    def to_json(self, result: Mapping[str, list[float]]) -> dict[str, Any]:
        """Return a result as plain JSON."""
        return dict(result)

    def from_json(self, content: Any) -> dict[str, list[float]]:
        """Return the result that `to_json` wrote."""
        return dict(content)
