"""What is computed on one block of elements: merging, counting overlap, densities, magnitudes.

Each function here is pure, element-wise up to exact integer counts, and serves CPU and GPU, eager and compiled. Counts
are sums of float32 ones, exact because a block has at most 2**24 elements.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from rammerge.masks import MaskMode, changes
from rammerge.methods import METHODS
from rammerge.randomness import uniform
from rammerge.rounding import Rounding, cast

MAX_BLOCK = 1 << 24
DENSITY_EPSILONS = (0.0, 1e-6, 1e-5, 1e-4)
DENSITY_ETA = 1e-3


@dataclass(frozen=True)
class Arguments:
    """The inputs of a block function besides the elements.

    Attributes:
        coefficients: float32 [rows, agents], the method's; [0, agents] where there is none.
        threshold: 0-d float32, the mask's.
        seeds: int64 [1 + agents], the rounding's seed and each agent's, all particular to the tensor.
        start: 0-d int64, index in the tensor of the block's first element.
    """

    coefficients: Tensor
    threshold: Tensor
    seeds: Tensor
    start: Tensor

    def to(self, device: torch.device) -> "Arguments":
        """Return the same on `device`."""
        return Arguments(*(getattr(self, name).to(device) for name in self.__dataclass_fields__))

    def at(self, offset: int) -> "Arguments":
        """Return the arguments of the block that begins `offset` elements later."""
        return Arguments(self.coefficients, self.threshold, self.seeds, self.start + offset)

    def as_list(self) -> list[Tensor]:
        """Return the tensors in the order of the fields."""
        return [self.coefficients, self.threshold, self.seeds, self.start]


@dataclass(frozen=True)
class Changes:
    """A block as kernels see it (see rammerge.methods.spec.Block)."""

    base: Tensor
    deltas: Sequence[Tensor]
    masks: Sequence[Tensor]
    arguments: Arguments

    @property
    def coefficients(self) -> Tensor:
        """Float32 [rows, agents]."""
        return self.arguments.coefficients

    def uniform(self, agent: int) -> Tensor:
        """Float32 [n] in [0, 1) of one agent."""
        return uniform(self.arguments.seeds[1 + agent], self.arguments.start, self.base)


@dataclass(frozen=True)
class MergeBlock:
    """Merge a block and count what survives the output dtype; the fields are all that its code depends on."""

    method: str
    mask_mode: MaskMode
    dtype: str
    rounding: Rounding

    def __call__(self, base: Tensor, agents: Sequence[Tensor], arguments: Arguments) -> tuple[Tensor, Tensor]:
        """Return the merged elements and the counts of `MergeCounts`.

        Args:
            base: stored elements, any float dtype, shape [n], n <= 2**24.
            agents: each agent's, likewise.
            arguments: see `Arguments`.

        Returns:
            Elements in the output dtype, shape [n]; float32 [3 * agents + 4], all whole numbers but the last.
        """
        block = read_changes(base, agents, self.mask_mode, arguments)
        update = METHODS[self.method].kernel(block)
        rounded_base = self._cast(block.base, arguments)
        merged = self._cast(_apply(block.base, update.delta), arguments)
        changed = _differs(merged, rounded_base)
        distinct = torch.zeros_like(changed)
        if update.reference is not None:
            distinct = _differs(merged, self._cast(_apply(block.base, update.reference), arguments))
        active = _total(block.masks)
        only_one = (active == 1.0).float()
        counts = [mask.sum() for mask in block.masks]
        counts += [(mask * only_one).sum() for mask in block.masks]
        counts += [(mask * changed).sum() for mask in block.masks]
        counts += [_nonzero(update.delta), changed.sum(), distinct.sum(), _health(block, merged)]
        return merged, torch.stack(counts)

    def _cast(self, values: Tensor, arguments: Arguments) -> Tensor:
        return cast(values, getattr(torch, self.dtype), self.rounding, arguments.seeds[0], arguments.start)

    def describe(self) -> dict[str, Any]:
        """Return the fields as JSON, for the key of the compiled form."""
        return {"function": "merge", **asdict(self)}


@dataclass(frozen=True)
class CountBlock:
    """Count overlap on a block."""

    agents: int
    mask_mode: MaskMode

    def __call__(self, base: Tensor, agents: Sequence[Tensor], arguments: Arguments) -> tuple[Tensor, Tensor]:
        """Return an empty tensor and float32 [agents**2 + 1]: entry [t, k - 1] counts agent t's changed elements that
        k agents changed; the last is non-finite where an input is."""
        block = read_changes(base, agents, self.mask_mode, arguments)
        active = _total(block.masks)
        by_count = [(active == float(k)).float() for k in range(1, self.agents + 1)]
        counts = [(mask * equal).sum() for mask in block.masks for equal in by_count]
        return torch.empty(0), torch.stack([*counts, _health(block, block.base)])

    def describe(self) -> dict[str, Any]:
        """Return the fields as JSON, for the key of the compiled form."""
        return {"function": "count", **asdict(self)}


@dataclass(frozen=True)
class DensityBlock:
    """Count each agent's changed elements by several rules at once, for `inspect`."""

    agents: int

    def __call__(self, base: Tensor, agents: Sequence[Tensor], arguments: Arguments) -> tuple[Tensor, Tensor]:
        """Return an empty tensor and float32 [agents * 6 + 1]: per agent |delta| above each of `DENSITY_EPSILONS`,
        relative change above `DENSITY_ETA`, and elements that differ in the base's dtype; then as `CountBlock`."""
        exact = read_changes(base, agents, "exact", arguments)
        counts: list[Tensor] = []
        for agent, delta, differs in zip(agents, exact.deltas, exact.masks, strict=True):
            magnitude = delta.abs()
            counts += [(magnitude > epsilon).float().sum() for epsilon in DENSITY_EPSILONS]
            largest = torch.maximum(exact.base.abs(), agent.float().abs())
            counts += [(magnitude > DENSITY_ETA * largest).float().sum(), differs.sum()]
        return torch.empty(0), torch.stack([*counts, _health(exact, exact.base)])

    def describe(self) -> dict[str, Any]:
        """Return the fields as JSON, for the key of the compiled form."""
        return {"function": "density", **asdict(self)}


BlockFunction = MergeBlock | CountBlock | DensityBlock


def read_changes(base: Tensor, agents: Sequence[Tensor], mode: MaskMode, arguments: Arguments) -> Changes:
    """Return task vectors and masks of a block of stored elements."""
    pairs = [changes(base, agent, mode, arguments.threshold) for agent in agents]
    return Changes(base.float(), [delta for delta, _ in pairs], [mask for _, mask in pairs], arguments)


def _apply(base: Tensor, delta: Tensor) -> Tensor:
    # Not `base + delta` throughout: adding zero would turn a stored -0.0 into 0.0.
    return torch.where(delta == 0.0, base, base + delta)


def _differs(left: Tensor, right: Tensor) -> Tensor:
    return (left.float() != right.float()).float()


def _nonzero(values: Tensor) -> Tensor:
    return (values != 0.0).float().sum()


def _total(tensors: Sequence[Tensor]) -> Tensor:
    total = tensors[0]
    for tensor in tensors[1:]:
        total = total + tensor
    return total


def _health(block: Changes, merged: Tensor) -> Tensor:
    # Finite if and only if every input and every result is: maxima keep NaN and infinity, and a task vector is
    # non-finite wherever its agent or the base is.
    worst = merged.float().abs().amax()
    for delta in block.deltas:
        worst = torch.maximum(worst, delta.abs().amax())
    return worst
