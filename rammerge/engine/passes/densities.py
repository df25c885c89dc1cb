"""The pass that measures densities: the share of elements that each agent changed, by several rules."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from rammerge.engine.blocks import Arguments, counted, health, read_block, total
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
class DensitiesByRule:
    """Each agent's densities by the agent's name."""

    name: ClassVar[str] = "densities"
    height: ClassVar[int] = 1
    needs: ClassVar[Sequence[Any]] = ()

    def weighted(self, weights: Sequence[float]) -> DensitiesByRule:
        """Return the pass itself: what an agent changed does not depend on its weight."""
        return self

    def function(self, agents: int) -> DensityBlock:
        """Return the function of one block."""
        return DensityBlock(agents)

    def reserved(self, agents: int) -> int:
        """Return the bytes that a thread needs to collect results: hardly any."""
        return 0

    def collect(self, session: Session, runner: Runner, known: Statistics) -> Scans[dict[str, Densities]]:
        """Count over the model."""
        found = yield from count_by_tensor(session, "measure densities", runner, 0.0)
        sums = [sum(column) for column in zip(*found.values(), strict=True)] or [0] * runner.width
        shares = [count / max(1, session.elements) for count in sums]
        return {
            name: _densities(members, session.floats, shares[index * _RULES : (index + 1) * _RULES])
            for index, (name, members) in enumerate(session.agents.items())
        }

    def to_json(self, result: Mapping[str, Densities]) -> dict[str, Any]:
        """Return a result as plain JSON."""
        return {name: asdict(densities) for name, densities in result.items()}

    def from_json(self, content: Any) -> dict[str, Densities]:
        """Return the result that `to_json` wrote."""
        return {name: Densities(**densities) for name, densities in content.items()}


def _densities(members: Sequence[Checkpoint], floats: Sequence[str], shares: Sequence[float]) -> Densities:
    dtypes: Counter[str] = Counter()
    for tensor in floats:
        info = members[0].tensors[tensor]
        dtypes[info.dtype.name if len(members) == 1 else "float32"] += info.numel  # the mean of several is float32
    above = {f"{epsilon:g}": share for epsilon, share in zip(EPSILONS, shares, strict=False)}
    *_, relative, exact, hidden = shares
    changed = shares[0]  # above epsilon 0
    return Densities(dict(sorted(dtypes.items())), above, relative, exact, hidden / changed if changed else 0.0)
