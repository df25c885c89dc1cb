"""What is computed on one block of elements.

A block function is pure, element-wise up to exact integer counts, and serves CPU and GPU, eager and compiled. It takes
stored elements of the base and of each agent, and returns tensors of the same length and counts of the whole block.
It counts float32 zeros and ones: their sums are exact, because a block has at most 2**24 elements, and are returned as
float64, so that the sums over blocks are exact too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

from rammerge.numerics.dtypes import DType
from rammerge.numerics.masks import MaskMode, changes
from rammerge.numerics.randomness import uniform
from rammerge.system.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

MAX_BLOCK = 1 << 24

# A method's coefficients: one row or more, each of a number for each agent.
Rows = Sequence[Sequence[float]]

Number = TypeVar("Number", int, float)


@dataclass(frozen=True)
class Numbers:
    """The inputs of a block function besides the elements, as they are given to compiled code.

    Attributes:
        coefficients: the method's.
        threshold: the mask's.
        seeds: the rounding's seed and each agent's, in [0, 2**62), all particular to the tensor.
        start: index in the tensor of the block's first element.
    """

    coefficients: Rows
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
class Block:
    """A run of elements of one tensor, as a method's kernel sees it.

    Attributes:
        base: float32 [n], the base's elements.
        deltas: float32 [n] for each agent, its task vector, in the recipe's order.
        masks: float32 [n] for each agent, 1 where it changed the element and 0 elsewhere.
        arguments: what else the block function was given.
    """

    base: Tensor
    deltas: Sequence[Tensor]
    masks: Sequence[Tensor]
    arguments: Arguments

    @property
    def coefficients(self) -> Tensor:
        """Float32 [rows, agents]: what the method's `coefficients` returned."""
        return self.arguments.coefficients

    def uniform(self, agent: int) -> Tensor:
        """Return float32 [n] in [0, 1): random numbers that run seed, agent, tensor name and element decide."""
        return uniform(self.arguments.seeds[1 + agent], self.arguments.start, self.base)


@dataclass(frozen=True)
class Update:
    """What a kernel returns, float32 of shape [n].

    Attributes:
        delta: what is added to the base.
        reference: the same by a simpler rule that the method claims to improve on (RAM for RAM+), when there is one;
            the rounding report counts where the two differ once they are cast.
    """

    delta: Tensor
    reference: Tensor | None = None


class BlockFunction(Protocol):
    """A function of one block: a frozen dataclass, whose fields are all that its code depends on.

    The fields are strings, numbers, and functions of a module, so that a process of its own can compile it.
    """

    def counts(self, agents: int) -> int:
        """Return how many counts are made, the health aside."""

    def results(self, agents: int) -> list[DType]:
        """Return the dtypes of the tensors that are made."""

    def __call__(self, base: Tensor, agents: Sequence[Tensor], arguments: Arguments) -> tuple[list[Tensor], Tensor]:
        """Return tensors and counts.

        Args:
            base: stored elements, any float dtype, shape [n], n <= 2**24.
            agents: each agent's, likewise.
            arguments: see `Arguments`.

        Returns:
            Tensors of shape [n]; float64 [counts + 1], whose last is the health: zero, or NaN if an input or a result
            is not finite.
        """


def read_block(base: Tensor, agents: Sequence[Tensor], mode: MaskMode, arguments: Arguments) -> Block:
    """Return task vectors and masks of a block of stored elements."""
    pairs = [changes(base, agent, mode, arguments.threshold) for agent in agents]
    return Block(base.float(), [delta for delta, _ in pairs], [mask for _, mask in pairs], arguments)


def total(tensors: Sequence[Tensor]) -> Tensor:
    """Return the sum of tensors, added in their order."""
    added = tensors[0]
    for tensor in tensors[1:]:
        added = added + tensor
    return added


def counted(indicators: Sequence[Tensor], health: Tensor) -> Tensor:
    """Return the counts of indicators of zeros and ones, and the health."""
    return torch.stack([*(indicator.sum() for indicator in indicators), health]).double()


def added(total: Sequence[Number], counts: Sequence[Number]) -> list[Number]:
    """Return the sums of two blocks' counts."""
    return [so_far + count for so_far, count in zip(total, counts, strict=True)]


def health(values: Tensor) -> Tensor:
    """Return zero if all values are finite, else NaN."""
    # Zero times NaN or infinity is NaN. A task vector is non-finite wherever its agent or the base is, and so is what
    # a method makes of it.
    return (values.float() * 0.0).sum()
