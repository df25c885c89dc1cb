"""What is computed on one block of elements: merging, counting overlap, densities, magnitudes.

Each function here is pure, element-wise up to exact integer counts, and serves CPU and GPU, eager and compiled. It
takes stored elements of the base and of each agent, and returns tensors of the same length and counts of the whole.
What is counted are float32 zeros and ones: their sums are exact, as a block has at most 2**24 elements, and are
returned as float64 so that blocks add up exactly too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from rammerge.methods import METHODS
from rammerge.numerics.dtypes import DTYPES, DType
from rammerge.numerics.masks import MaskMode, changes
from rammerge.numerics.randomness import uniform
from rammerge.numerics.rounding import Rounding, cast
from rammerge.system.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

MAX_BLOCK = 1 << 24
DENSITY_EPSILONS = (0.0, 1e-6, 1e-5, 1e-4)
DENSITY_ETA = 1e-3


@dataclass(frozen=True)
class Numbers:
    """The inputs of a block function besides the elements, as they are given to compiled code.

    Attributes:
        coefficients: one row or more of a number for each agent, the method's.
        threshold: the mask's.
        seeds: the rounding's seed and each agent's, in [0, 2**62), all particular to the tensor.
        start: index in the tensor of the block's first element.
    """

    coefficients: Sequence[Sequence[float]]
    threshold: float
    seeds: Sequence[int]
    start: int

    def tensors(self, device: str = "cpu") -> Arguments:
        """Return them as tensors on `device`."""
        return Arguments(
            torch.tensor(self.coefficients, dtype=torch.float32, device=device),
            torch.tensor(self.threshold, dtype=torch.float32, device=device),
            torch.tensor(self.seeds, dtype=torch.int64, device=device),
            torch.tensor(self.start, dtype=torch.int64, device=device),
        )


@dataclass(frozen=True)
class Arguments:
    """The inputs of a block function besides the elements.

    Attributes:
        coefficients: float32 [rows, agents], the method's.
        threshold: 0-d float32, the mask's.
        seeds: int64 [1 + agents], the rounding's seed and each agent's, all particular to the tensor.
        start: 0-d int64, index in the tensor of the block's first element.
    """

    coefficients: Tensor
    threshold: Tensor
    seeds: Tensor
    start: Tensor

    def at(self, offset: int) -> Arguments:
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

    def counts(self, agents: int) -> int:
        """Return how many counts are made, the health aside."""
        return 3 * agents + (2 if METHODS[self.method].improves_on is None else 3)

    def results(self, agents: int) -> list[DType]:
        """Return the dtypes of the tensors that are made."""
        return [DTYPES[self.dtype]]

    def __call__(self, base: Tensor, agents: Sequence[Tensor], arguments: Arguments) -> tuple[list[Tensor], Tensor]:
        """Return the merged elements and the counts.

        Args:
            base: stored elements, any float dtype, shape [n], n <= 2**24.
            agents: each agent's, likewise.
            arguments: see `Arguments`.

        Returns:
            The elements in the output dtype, shape [n]; float64 [counts + 1]: per agent its changed elements, those of
            them that no other agent changed, and those whose merged value differs from the base's once both are cast;
            elements that the method changed, that differ from the base once cast and, where the method has a reference,
            that differ from the reference once cast; zero, or NaN if an input or a result is not finite.
        """
        block = read_changes(base, agents, self.mask_mode, arguments)
        update = METHODS[self.method].kernel(block)
        rounded_base = base if base.dtype == DTYPES[self.dtype].torch_dtype else self._cast(block.base, arguments)
        merged = self._cast(_apply(block.base, update.delta), arguments)
        changed = _differs(merged, rounded_base)
        only_one = (_total(block.masks) == 1.0).float()
        counted = [*block.masks, *(mask * only_one for mask in block.masks), *(mask * changed for mask in block.masks)]
        counted += [1.0 - (update.delta == 0.0).float(), changed]
        if update.reference is not None:
            counted.append(_differs(merged, self._cast(_apply(block.base, update.reference), arguments)))
        return [merged], _counts(counted, _health(merged))

    def _cast(self, values: Tensor, arguments: Arguments) -> Tensor:
        return cast(values, DTYPES[self.dtype].torch_dtype, self.rounding, arguments.seeds[0], arguments.start)

    def describe(self) -> dict[str, Any]:
        """Return the fields as JSON, for the key of the compiled form."""
        return {"function": "merge", **asdict(self)}


@dataclass(frozen=True)
class CountBlock:
    """Count overlap on a block."""

    agents: int
    mask_mode: MaskMode

    def counts(self, agents: int) -> int:
        """Return how many counts are made, the health aside."""
        return agents * agents

    def results(self, agents: int) -> list[DType]:
        """Return the dtypes of the tensors that are made: none."""
        return []

    def __call__(self, base: Tensor, agents: Sequence[Tensor], arguments: Arguments) -> tuple[list[Tensor], Tensor]:
        """Return float64 [agents**2 + 1].

        Entry [t, k - 1] counts agent t's changed elements that k agents changed; the last is zero, or NaN if an input
        is not finite.
        """
        block = read_changes(base, agents, self.mask_mode, arguments)
        active = _total(block.masks)
        by_count = [(active == float(k)).float() for k in range(1, self.agents + 1)]
        counted = [mask * equal for mask in block.masks for equal in by_count]
        return [], _counts(counted, _health(_total(block.deltas)))

    def describe(self) -> dict[str, Any]:
        """Return the fields as JSON, for the key of the compiled form."""
        return {"function": "count", **asdict(self)}


@dataclass(frozen=True)
class DensityBlock:
    """Count each agent's changed elements by several rules at once, for `inspect`."""

    agents: int

    def counts(self, agents: int) -> int:
        """Return how many counts are made, the health aside."""
        return agents * (len(DENSITY_EPSILONS) + 2)

    def results(self, agents: int) -> list[DType]:
        """Return the dtypes of the tensors that are made: none."""
        return []

    def __call__(self, base: Tensor, agents: Sequence[Tensor], arguments: Arguments) -> tuple[list[Tensor], Tensor]:
        """Return float64 [agents * 6 + 1].

        Per agent: |delta| above each of `DENSITY_EPSILONS`, relative change above `DENSITY_ETA`, and elements that
        differ in the base's dtype. The last entry is that of `CountBlock`.
        """
        exact = read_changes(base, agents, "exact", arguments)
        counted: list[Tensor] = []
        for agent, delta, differs in zip(agents, exact.deltas, exact.masks, strict=True):
            magnitude = delta.abs()
            counted += [(magnitude > epsilon).float() for epsilon in DENSITY_EPSILONS]
            largest = torch.maximum(exact.base.abs(), agent.float().abs())
            counted += [(magnitude > DENSITY_ETA * largest).float(), differs]
        return [], _counts(counted, _health(_total(exact.deltas)))

    def describe(self) -> dict[str, Any]:
        """Return the fields as JSON, for the key of the compiled form."""
        return {"function": "density", **asdict(self)}


@dataclass(frozen=True)
class MagnitudeBlock:
    """Return the magnitudes that a method ranks."""

    method: str

    def counts(self, agents: int) -> int:
        """Return how many counts are made, the health aside."""
        return 0

    def results(self, agents: int) -> list[DType]:
        """Return the dtypes of the tensors that are made: one for each agent."""
        return [DTYPES["float32"]] * agents

    def __call__(self, base: Tensor, agents: Sequence[Tensor], arguments: Arguments) -> tuple[list[Tensor], Tensor]:
        """Return float32 [n] for each agent and float64 [1], the health as in `CountBlock`."""
        before = base.float()
        deltas = [agent.float() - before for agent in agents]
        trimmed = METHODS[self.method].trimmed
        assert trimmed is not None, f"{self.method} asks for magnitudes and names none"
        ranked = trimmed(Changes(before, deltas, (), arguments))
        return [values.abs() for values in ranked], _counts([], _health(_total(deltas)))

    def describe(self) -> dict[str, Any]:
        """Return the fields as JSON, for the key of the compiled form."""
        return {"function": "magnitude", **asdict(self)}


BlockFunction = MergeBlock | CountBlock | DensityBlock | MagnitudeBlock


def read_changes(base: Tensor, agents: Sequence[Tensor], mode: MaskMode, arguments: Arguments) -> Changes:
    """Return task vectors and masks of a block of stored elements."""
    pairs = [changes(base, agent, mode, arguments.threshold) for agent in agents]
    return Changes(base.float(), [delta for delta, _ in pairs], [mask for _, mask in pairs], arguments)


def _apply(base: Tensor, delta: Tensor) -> Tensor:
    # Not `base + delta` throughout: adding zero would turn a stored -0.0 into 0.0.
    return torch.where(delta == 0.0, base, base + delta)


def _differs(left: Tensor, right: Tensor) -> Tensor:
    return (left.float() != right.float()).float()


def _total(tensors: Sequence[Tensor]) -> Tensor:
    total = tensors[0]
    for tensor in tensors[1:]:
        total = total + tensor
    return total


def _counts(indicators: Sequence[Tensor], health: Tensor) -> Tensor:
    return torch.stack([*(indicator.sum() for indicator in indicators), health]).double()


def _health(values: Tensor) -> Tensor:
    # Zero if all are finite, else NaN, as zero times NaN or infinity is. A task vector is non-finite wherever its agent
    # or the base is, and so is what a method makes of it.
    return (values.float() * 0.0).sum()
