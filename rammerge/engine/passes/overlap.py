"""The pass that counts overlap: per tensor and agent, changed elements by the number of agents that changed them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import TYPE_CHECKING, Any, ClassVar

from rammerge.engine.blocks import Arguments, Block, counted, health, read_block, total
from rammerge.engine.passes.products import InnerProducts, product_dtypes, products
from rammerge.engine.passes.statistics import Pass, Scans, Statistics, count_and_sum_by_tensor, united
from rammerge.numerics.dtypes import DType
from rammerge.numerics.masks import Mask, MaskMode
from rammerge.overlap import Gram, Overlap, Pairs

if TYPE_CHECKING:
    from torch import Tensor

    from rammerge.engine.running import Runner
    from rammerge.engine.session import Session


@dataclass(frozen=True)
class CountBlock:
    """Count overlap on a block, and with `products` compare each two agents and multiply the task vectors too."""

    agents: int
    mask_mode: MaskMode
    products: bool = False

    def counts(self, agents: int) -> int:
        """Return the number of counts, without the health."""
        return agents * agents + (agents * (agents - 1) if self.products else 0)

    def results(self, agents: int) -> list[DType]:
        """Return the dtypes of the resulting tensors, which are summed: none without `products`."""
        return product_dtypes(agents) if self.products else []

    def __call__(self, base: Tensor, agents: Sequence[Tensor], arguments: Arguments) -> tuple[list[Tensor], Tensor]:
        """Return float64 [agents**2 + 1]: entry [t, k - 1] counts agent t's changed elements that k agents changed.

        With `products` counts of each two agents come before the health: elements that both changed, and of these the
        elements whose changes have the same sign.
        """
        block = read_block(base, agents, self.mask_mode, arguments)
        active = total(block.masks)
        by_count = [(active == float(k)).float() for k in range(1, self.agents + 1)]
        indicators = [mask * equal for mask in block.masks for equal in by_count]
        made = products(block.deltas) if self.products else []
        if self.products:
            indicators += _compared(block)
        return made, counted(indicators, health(total(block.deltas)))


def _compared(block: Block) -> list[Tensor]:
    """Return for each two agents where both changed an element, and where they did so with the same sign."""
    signs = [delta.sign() for delta in block.deltas]
    found = []
    for i, j in combinations(range(len(signs)), 2):
        both = block.masks[i] * block.masks[j]
        found += [both, both * (signs[i] == signs[j]).float()]
    return found


@dataclass(frozen=True)
class OverlapCounts:
    """Exact integer counts of the elements that agents changed, alone or with others (RAM paper, Sec. 3).

    Attributes:
        mask: what counts as changed.
        products: whether to compare each two agents too, by signs and by the task vectors' inner products, in the same
            read.
    """

    mask: Mask
    products: bool = False

    name: ClassVar[str] = "overlap"
    height: ClassVar[int] = 1
    needs: ClassVar[Sequence[Any]] = ()

    def weighted(self, weights: Sequence[float]) -> OverlapCounts:
        """Return the pass itself: what an agent changed does not depend on its weight."""
        return self

    def function(self, agents: int) -> CountBlock:
        """Return the function of one block."""
        return CountBlock(agents, self.mask.mode, self.products)

    def reserved(self, agents: int) -> int:
        """Return the bytes that a thread needs to collect results: hardly any."""
        return 0

    def collect(self, session: Session, runner: Runner, known: Statistics) -> Scans[Overlap]:
        """Count over the model."""
        agents = len(session.agents)
        found = yield from count_and_sum_by_tensor(session, "count overlap", runner, self.mask.threshold)
        by_tensor = {
            name: [counts[start : start + agents] for start in range(0, agents * agents, agents)]
            for name, (counts, _) in found.items()
        }
        names = tuple(session.agents)
        sizes = {name: session.base.tensors[name].numel for name in session.floats}
        gram = pairs = None
        if self.products:
            gram = Gram(names, {name: sums for name, (_, sums) in found.items()})
            pairs = Pairs(names, {name: counts[agents * agents :] for name, (counts, _) in found.items()})
        return Overlap(names, self.mask, sizes, by_tensor, gram=gram, pairs=pairs)

    def counted(self, known: Statistics) -> Sequence[OverlapCounts]:
        """Return the pass itself."""
        return (self,)

    def join(self, results: Sequence[Overlap]) -> Overlap:
        """Return the overlap of the whole model."""
        whole = replace(
            results[0],
            sizes=united(each.sizes for each in results),
            by_tensor=united(each.by_tensor for each in results),
        )
        if not self.products:
            return whole
        gram = Gram(whole.agents, united(each.gram.by_tensor for each in results if each.gram))
        pairs = Pairs(whole.agents, united(each.pairs.by_tensor for each in results if each.pairs))
        return replace(whole, gram=gram, pairs=pairs)

    def to_json(self, result: Overlap) -> dict[str, Any]:
        """Return a result as plain JSON."""
        return result.to_json()

    def from_json(self, content: Any) -> Overlap:
        """Return the result that `to_json` wrote."""
        return Overlap.from_json(content)


# The passes that an overlap with the default mask answers.
GIVEN: Sequence[Pass[Any]] = (OverlapCounts(Mask()), InnerProducts())


def known_from(overlap: Overlap | None, agents: Sequence[str], mask: Mask) -> Statistics:
    """Return what an earlier measurement of the same agents found; counts only if they are of the same mask."""
    if overlap is None or overlap.agents != tuple(agents):
        return Statistics()
    found: dict[Pass[Any], Any] = {OverlapCounts(mask): overlap} if overlap.mask == mask else {}
    return Statistics(found if overlap.gram is None else {**found, InnerProducts(): overlap.gram})
