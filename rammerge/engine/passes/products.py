"""The pass that computes the inner products of the task vectors, per tensor, in float64."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from rammerge.engine.blocks import Arguments, counted, health, total
from rammerge.engine.passes.statistics import Scans, count_and_sum_by_tensor, united
from rammerge.numerics.dtypes import DTYPES, DType
from rammerge.overlap import Gram

if TYPE_CHECKING:
    from torch import Tensor

    from rammerge.engine.passes.statistics import Statistics
    from rammerge.engine.running import Runner
    from rammerge.engine.session import Session


@dataclass(frozen=True)
class ProductBlock:
    """Multiply each two task vectors of a block, element by element."""

    def counts(self, agents: int) -> int:
        """Return the number of counts, without the health."""
        return 0

    def results(self, agents: int) -> list[DType]:
        """Return the dtypes of the resulting tensors, which are summed."""
        return product_dtypes(agents)

    def __call__(self, base: Tensor, agents: Sequence[Tensor], arguments: Arguments) -> tuple[list[Tensor], Tensor]:
        """Return the products of task vectors i <= j, row after row of the upper triangle, and the health."""
        before = base.float()
        deltas = [agent.float() - before for agent in agents]
        return products(deltas), counted([], health(total(deltas)))


def products(deltas: Sequence[Tensor]) -> list[Tensor]:
    """Return the element-wise products of vectors i <= j, float64 [n], which are exact, from float32 [n]."""
    exact = [delta.double() for delta in deltas]
    return [left * right for at, left in enumerate(exact) for right in exact[at:]]


def product_dtypes(agents: int) -> list[DType]:
    """Return the dtypes of what `products` returns."""
    return [DTYPES["float64"]] * (agents * (agents + 1) // 2)


@dataclass(frozen=True)
class InnerProducts:
    """The inner products of the task vectors, per tensor and over the model.

    Attributes:
        weights: factors of the task vectors; empty if they are all 1.
    """

    weights: tuple[float, ...] = ()

    name: ClassVar[str] = "products"
    height: ClassVar[int] = 1
    needs: ClassVar[Sequence[Any]] = ()

    def weighted(self, weights: Sequence[float]) -> InnerProducts:
        """Return the same products of task vectors that are multiplied by their agents' weights."""
        return InnerProducts(tuple(weights))

    def function(self, agents: int) -> ProductBlock:
        """Return the function of one block."""
        return ProductBlock()

    def reserved(self, agents: int) -> int:
        """Return the bytes that a thread needs to collect results: hardly any."""
        return 0

    def collect(self, session: Session, runner: Runner, known: Statistics) -> Scans[Gram]:
        """Sum over the model."""
        found = yield from count_and_sum_by_tensor(session, "multiply task vectors", runner, 0.0)
        gram = Gram(tuple(session.agents), {name: sums for name, (_, sums) in found.items()})
        return gram.weighted(self.weights) if self.weights else gram

    def counted(self, known: Statistics) -> Sequence[InnerProducts]:
        """Return the pass itself."""
        return (self,)

    def join(self, results: Sequence[Gram]) -> Gram:
        """Return the inner products of the whole model."""
        return Gram(results[0].agents, united(each.by_tensor for each in results))

    def to_json(self, result: Gram) -> dict[str, Any]:
        """Return a result as plain JSON."""
        return result.to_json()

    def from_json(self, content: Any) -> Gram:
        """Return the result that `to_json` wrote."""
        return Gram.from_json(content)
