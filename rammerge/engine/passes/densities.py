"""The pass that counts the elements that each agent changed by several rules, of which densities are made."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import reduce
from operator import add
from typing import TYPE_CHECKING, Any, ClassVar

from rammerge.engine.blocks import Arguments, added, counted, health, read_block, total
from rammerge.engine.passes.statistics import Scans, count_by_tensor
from rammerge.numerics.dtypes import DType
from rammerge.overlap import Densities
from rammerge.system.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

    from rammerge.checkpoints.checkpoint import Checkpoint
    from rammerge.engine.passes.statistics import Statistics
    from rammerge.engine.running import Runner
    from rammerge.engine.session import Session

EPSILONS = (0.0, 1e-6, 1e-5, 1e-4)
ETA = 1e-3
_RULES = len(EPSILONS) + 3


@dataclass(frozen=True)
class DensityBlock:
    """Count each agent's changed elements by all rules."""

    agents: int

    def counts(self, agents: int) -> int:
        """Return the number of counts, without the health."""
        return agents * _RULES

    def results(self, agents: int) -> list[DType]:
        """Return the dtypes of the resulting tensors: none."""
        return []

    def __call__(self, base: Tensor, agents: Sequence[Tensor], arguments: Arguments) -> tuple[list[Tensor], Tensor]:
        """Return float64 [agents * 7 + 1].

        Per agent: |delta| above each of `EPSILONS`, relative change above `ETA`, elements that differ in the base's
        dtype, and changes that are smaller than half a step of bfloat16 at the base's element.
        """
        exact = read_block(base, agents, "exact", arguments)
        indicators: list[Tensor] = []
        half = _half_step(exact.base)
        for agent, delta, differs in zip(agents, exact.deltas, exact.masks, strict=True):
            magnitude = delta.abs()
            indicators += [(magnitude > epsilon).float() for epsilon in EPSILONS]
            largest = torch.maximum(exact.base.abs(), agent.float().abs())
            hidden = (magnitude > 0.0).float() * (magnitude < half).float()
            indicators += [(magnitude > ETA * largest).float(), differs, hidden]
        return [], counted(indicators, health(total(exact.deltas)))


def _half_step(values: Tensor) -> Tensor:
    """Return half the distance from float32 [n] to bfloat16's next larger magnitude; 0 for zeros and subnormals."""
    # bfloat16 has float32's exponents and 7 bits below the first: a step is 2**-7 of the power of two below a value.
    power = (values.view(torch.int32).to(torch.int64) & 0x7F800000).to(torch.int32).view(torch.float32)
    return power * 2.0**-8


@dataclass(frozen=True)
class Changes:
    """One agent's changed elements by several rules.

    Attributes:
        elements: float elements of the agent.
        dtypes: stored dtype -> elements that have it.
        counts: elements that changed by each of `EPSILONS`, relatively, exactly, and hidden in bfloat16.
    """

    elements: int
    dtypes: Mapping[str, int]
    counts: Sequence[int]

    def densities(self) -> Densities:
        """Return them as shares."""
        shares = [count / max(1, self.elements) for count in self.counts]
        above = {f"{epsilon:g}": share for epsilon, share in zip(EPSILONS, shares, strict=False)}
        *_, relative, exact, hidden = shares
        changed = shares[0]  # above epsilon 0
        return Densities(dict(self.dtypes), above, relative, exact, hidden / changed if changed else 0.0)

    def __add__(self, other: Changes) -> Changes:
        """Return the changes in the tensors of both."""
        dtypes = Counter(self.dtypes)
        dtypes.update(other.dtypes)
        counts = added(self.counts, other.counts)
        return Changes(self.elements + other.elements, dict(sorted(dtypes.items())), counts)


@dataclass(frozen=True)
class ChangesByRule:
    """Each agent's changes by the agent's name."""

    name: ClassVar[str] = "densities"
    height: ClassVar[int] = 1
    needs: ClassVar[Sequence[Any]] = ()

    def weighted(self, weights: Sequence[float]) -> ChangesByRule:
        """Return the pass itself: what an agent changed does not depend on its weight."""
        return self

    def function(self, agents: int) -> DensityBlock:
        """Return the function of one block."""
        return DensityBlock(agents)

    def reserved(self, agents: int) -> int:
        """Return the bytes that a thread needs to collect results: hardly any."""
        return 0

    def collect(self, session: Session, runner: Runner, known: Statistics) -> Scans[dict[str, Changes]]:
        """Count over the model."""
        found = yield from count_by_tensor(session, "measure densities", runner, 0.0)
        sums = [sum(column) for column in zip(*found.values(), strict=True)] or [0] * runner.width
        return {
            name: _changes(members, session.floats, sums[index * _RULES : (index + 1) * _RULES])
            for index, (name, members) in enumerate(session.agents.items())
        }

    def counted(self, known: Statistics) -> Sequence[ChangesByRule]:
        """Return the pass itself."""
        return (self,)

    def join(self, results: Sequence[Mapping[str, Changes]]) -> dict[str, Changes]:
        """Return the changes in the whole model."""
        return {name: reduce(add, (each[name] for each in results)) for name in results[0]}

    def to_json(self, result: Mapping[str, Changes]) -> dict[str, Any]:
        """Return a result as plain JSON."""
        return {name: asdict(changes) for name, changes in result.items()}

    def from_json(self, content: Any) -> dict[str, Changes]:
        """Return the result that `to_json` wrote."""
        return {name: Changes(**changes) for name, changes in content.items()}


def _changes(members: Sequence[Checkpoint], floats: Sequence[str], counts: Sequence[int]) -> Changes:
    dtypes: Counter[str] = Counter()
    for tensor in floats:
        info = members[0].tensors[tensor]
        dtypes[info.dtype.name if len(members) == 1 else "float32"] += info.numel  # the mean of several is float32
    return Changes(dtypes.total(), dict(sorted(dtypes.items())), counts)
