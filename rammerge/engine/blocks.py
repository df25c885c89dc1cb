"""What is computed on one block of elements.

A block function is pure and element-wise, except for exact integer counts and places in rows. It runs on CPU and GPU,
eager and compiled. It takes stored elements of the base and of each agent. It returns tensors of the same length and
counts of the whole block. Counts are sums of float32 zeros and ones. They are exact, because a block has at most 2**24
elements, and are returned as float64, so that sums over blocks are exact too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

from rammerge.engine.rows import places
from rammerge.numerics.dtypes import DType
from rammerge.numerics.masks import MaskMode, changes
from rammerge.numerics.randomness import uniform
from rammerge.system.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

# A method's coefficients: one or more rows of one number per agent.
Rows = Sequence[Sequence[float]]

Number = TypeVar("Number", int, float)


@dataclass(frozen=True)
class Numbers:
    """The inputs of a block function in addition to the elements, as compiled code takes them.

    Attributes:
        coefficients: the method's.
        threshold: the mask's.
        seeds: the rounding's seed and each agent's, in [0, 2**62), different for each tensor.
        start: index of the block's first element in its tensor.
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
    """The inputs of a block function in addition to the elements, as tensors.

    Attributes:
        coefficients: float32 [rows, agents], the method's.
        threshold: 0-d float32, the mask's.
        seeds: int64 [1 + agents], the rounding's seed and each agent's, different for each tensor.
        start: 0-d int64, index of the block's first element in its tensor.
        row: how many elements a row of the tensor has, if the block consists of whole rows.
        wanted: the elements whose results are wanted; None for all.
    """

    coefficients: Tensor
    threshold: Tensor
    seeds: Tensor
    start: Tensor
    row: int = 1
    wanted: slice | None = None

    def at(self, offset: int, row: int = 1, wanted: slice | None = None) -> Arguments:
        """Return the arguments of the block that starts `offset` elements later."""
        return Arguments(self.coefficients, self.threshold, self.seeds, self.start + offset, row, wanted)

    def places(self, magnitudes: Tensor) -> Tensor:
        """Return the elements' places in their rows; see `rammerge.engine.rows.places`."""
        return places(magnitudes, self.row)


@dataclass(frozen=True)
class Block:
    """Consecutive elements of one tensor, as a method's kernel sees them.

    Attributes:
        base: float32 [n], the base's elements.
        deltas: float32 [n] for each agent, its task vector, in the recipe's order.
        masks: float32 [n] for each agent, 1 where it changed the element and 0 elsewhere.
        arguments: the block function's other inputs.
    """

    base: Tensor
    deltas: Sequence[Tensor]
    masks: Sequence[Tensor]
    arguments: Arguments

    @property
    def coefficients(self) -> Tensor:
        """Float32 [rows, agents]: what the method's `coefficients` returned."""
        return self.arguments.coefficients

    @property
    def row(self) -> int:
        """How many elements a row has, for the kernel of a method `by_rows`."""
        return self.arguments.row

    def places(self, magnitudes: Tensor) -> Tensor:
        """Return float32 [n]: each element's place in its row, from 0 for the smallest of `magnitudes` to 1.

        This is for the kernel of a method `by_rows`, and the one operation in which elements see others.
        """
        return self.arguments.places(magnitudes)

    def uniform(self, agent: int) -> Tensor:
        """Return float32 [n] in [0, 1), random numbers that depend only on run seed, agent, tensor name and element."""
        return uniform(self.arguments.seeds[1 + agent], self.arguments.start, self.base)

    def weighted(self) -> Block:
        """Return the block with each task vector times its agent's number in the last row of coefficients."""
        factors = self.coefficients[-1]
        deltas = [delta * factors[agent] for agent, delta in enumerate(self.deltas)]
        return Block(self.base, deltas, self.masks, self.arguments)

    def part(self, wanted: slice) -> Block:
        """Return some of the elements."""
        deltas, masks = [delta[wanted] for delta in self.deltas], [mask[wanted] for mask in self.masks]
        return Block(self.base[wanted], deltas, masks, self.arguments.at(wanted.start))


@dataclass(frozen=True)
class Update:
    """The result of a kernel, float32 of shape [n].

    Attributes:
        delta: the change to add to the base.
        reference: the change by the simpler rule that the method improves on (RAM for RAM+), if there is one. The
            rounding report counts where the two differ after the cast.
    """

    delta: Tensor
    reference: Tensor | None = None

    def part(self, wanted: slice) -> Update:
        """Return the result of some of the elements."""
        return Update(self.delta[wanted], None if self.reference is None else self.reference[wanted])


class BlockFunction(Protocol):
    """A function of one block. It is a frozen dataclass, and its code depends only on its fields.

    The fields are strings, numbers and functions of a module, so that a separate process can compile it.
    """

    def counts(self, agents: int) -> int:
        """Return the number of counts, without the health."""

    def results(self, agents: int) -> list[DType]:
        """Return the dtypes of the resulting tensors. Those of float64 are summed, not kept (rammerge.engine.sums)."""

    def __call__(self, base: Tensor, agents: Sequence[Tensor], arguments: Arguments) -> tuple[list[Tensor], Tensor]:
        """Return tensors and counts.

        Args:
            base: stored elements, any float dtype, shape [n], n <= 2**24.
            agents: the same of each agent.
            arguments: see `Arguments`.

        Returns:
            Tensors of shape [n], or of the elements that are wanted, and float64 [counts + 1]. The last entry is the
            health: zero, or NaN if an input or a result is not finite.
        """


def read_block(
    base: Tensor, agents: Sequence[Tensor], mode: MaskMode, arguments: Arguments, *, weighted: bool = False
) -> Block:
    """Return task vectors and masks of a block of stored elements; with `weighted`, vectors times their factors."""
    pairs = [changes(base, agent, mode, arguments.threshold) for agent in agents]
    block = Block(base.float(), [delta for delta, _ in pairs], [mask for _, mask in pairs], arguments)
    return block.weighted() if weighted else block


def averaged(base: Tensor, members: Sequence[Tensor], groups: Sequence[int]) -> list[Tensor]:
    """Return each agent's elements: those of its checkpoint, or the mean of its group as averaging would write it.

    Args:
        base: stored base elements, shape [n].
        members: the same of each checkpoint.
        groups: how many of these belong to each agent, in order.
    """
    before, left = base.float(), list(members)
    agents = []
    for size in groups:
        group, left = left[:size], left[size:]
        delta = total([member.float() - before for member in group]) * (1.0 / size)
        agents.append(group[0] if size == 1 else apply_delta(before, delta))
    return agents


def apply_delta(base: Tensor, delta: Tensor) -> Tensor:
    """Return the sum of float32 [n] and a change."""
    # Adding a zero delta would turn a stored -0.0 into 0.0.
    return torch.where(delta == 0.0, base, base + delta)


def total(tensors: Sequence[Tensor]) -> Tensor:
    """Return the sum of tensors, added in the given order."""
    added = tensors[0]
    for tensor in tensors[1:]:
        added = added + tensor
    return added


def counted(indicators: Sequence[Tensor], health: Tensor) -> Tensor:
    """Return the sums of indicators, which are zeros and ones, followed by the health."""
    return torch.stack([*(indicator.sum() for indicator in indicators), health]).double()


def added(total: Sequence[Number], counts: Sequence[Number]) -> list[Number]:
    """Return the sums of two blocks' counts."""
    return [so_far + count for so_far, count in zip(total, counts, strict=True)]


def health(values: Tensor) -> Tensor:
    """Return zero if all values are finite, else NaN."""
    # Zero times NaN or infinity is NaN. Where a base or an agent is not finite, neither is the task vector, nor the
    # result of a method.
    return (values.float() * 0.0).sum()
