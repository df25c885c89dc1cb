"""What the merge computes on a block."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

from rammerge.engine.blocks import Arguments, Block, Rows, Update, apply_delta, counted, health, read_block, total
from rammerge.numerics.dtypes import DTYPES, DType
from rammerge.numerics.masks import Mask, MaskMode
from rammerge.numerics.rounding import Rounding, cast
from rammerge.system.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

    from rammerge.engine.matrices.method import MatrixMethod
    from rammerge.engine.passes.statistics import Pass, Statistics


class MergeRule(Protocol):
    """The engine's view of a merge rule, which is a method with settled parameters and agents (rammerge.rules).

    But for `passes` and `part`, its properties are about tensors that have no rule of their own.
    """

    @property
    def kernel(self) -> Callable[[Block], Update]:
        """The formula, which is a pure function of a module."""

    @property
    def mask(self) -> Mask:
        """What counts as changed."""

    @property
    def passes(self) -> Sequence[Pass[Any]]:
        """The statistics that `rows` reads."""

    @property
    def height(self) -> int:
        """The number of rows of coefficients that the kernel reads."""

    @property
    def by_rows(self) -> bool:
        """Whether the kernel needs whole rows of a tensor."""

    @property
    def improves_on(self) -> str | None:
        """The method whose result the kernel also computes as a reference, if any."""

    @property
    def weighted(self) -> bool:
        """Whether the last row of coefficients are factors of the task vectors."""

    @property
    def copied(self) -> int | None:
        """The model to copy instead of merging: 0 is the base, 1 the first agent."""

    @property
    def weights(self) -> Sequence[float]:
        """The factor of each agent's task vector; empty if all are 1."""

    @property
    def matrices(self) -> Sequence[MatrixMethod]:
        """How whole matrices are merged, if they are: by the first of these that applies; the kernel merges others."""

    def part(self, tensor: str) -> MergeRule:
        """Return the rule for one tensor, which has the same counts."""

    def rows(self, tensor: str, statistics: Statistics) -> Rows:
        """Return the coefficients of a tensor."""


def block_function(rule: MergeRule, dtype: str, rounding: Rounding, *, solved: bool = False) -> MergeBlock | CopyBlock:
    """Return what computes a block of the tensors for which `rule` is; `solved` ones only add their updates."""
    if rule.copied is None:
        made = MergeBlock.of(rule, dtype, rounding)
        return replace(made, kernel=unchanged) if solved else made
    return CopyBlock(rule.copied, rule.improves_on is not None, rule.mask.mode, dtype, rounding, bool(rule.matrices))


def unchanged(block: Block) -> Update:
    """Return no change."""
    return Update(torch.zeros_like(block.base))


@dataclass(frozen=True)
class MergeBlock:
    """Merge a block and count the changes that survive the output dtype.

    With `has_updates` the last agent is none, but an update to add to what the kernel makes of the others
    (rammerge.engine.matrices).
    """

    kernel: Callable[[Block], Update]
    has_reference: bool
    mask_mode: MaskMode
    dtype: str
    rounding: Rounding
    has_weights: bool = False
    has_updates: bool = False

    @classmethod
    def of(cls, rule: MergeRule, dtype: str, rounding: Rounding) -> MergeBlock:
        """Return the block function that merges by `rule`."""
        has_reference, has_updates = rule.improves_on is not None, bool(rule.matrices)
        return cls(rule.kernel, has_reference, rule.mask.mode, dtype, rounding, rule.weighted, has_updates)

    def counts(self, agents: int) -> int:
        """Return the number of counts, without the health."""
        return _width(agents - self.has_updates, self.has_reference)

    def results(self, agents: int) -> list[DType]:
        """Return the dtypes of the resulting tensors."""
        return [DTYPES[self.dtype]]

    def __call__(self, base: Tensor, agents: Sequence[Tensor], arguments: Arguments) -> tuple[list[Tensor], Tensor]:
        """Return the merged elements in the output dtype, and counts.

        The counts per agent are its changed elements, then those that no other agent changed, then those whose merged
        value differs from the base's after the cast. The counts of the block are the elements that the method changed,
        those that differ from the base after the cast and, where there is a reference, those that differ from it.
        """
        own = agents[: len(agents) - self.has_updates]
        block = read_block(base, own, self.mask_mode, arguments, weighted=self.has_weights)
        update = self.kernel(block)
        if self.has_updates:
            update = Update(update.delta + agents[-1])
        if (wanted := arguments.wanted) is not None:
            base, block, update = base[wanted], block.part(wanted), update.part(wanted)
            arguments = block.arguments
        rounded_base = base if base.dtype == DTYPES[self.dtype].torch_dtype else self._cast(block.base, arguments)
        merged = self._cast(apply_delta(block.base, update.delta), arguments)
        moved = 1.0 - (update.delta == 0.0).float()
        indicators = _indicators(block, moved, _differs(merged, rounded_base))
        if self.has_reference:
            assert update.reference is not None, f"{self.kernel.__qualname__} returns no reference"
            indicators.append(_differs(merged, self._cast(apply_delta(block.base, update.reference), arguments)))
        return [merged], counted(indicators, health(merged))

    def _cast(self, values: Tensor, arguments: Arguments) -> Tensor:
        return _rounded(values, self.dtype, self.rounding, arguments)


@dataclass(frozen=True)
class UpdateBlock:
    """Compute a block of what the kernel adds to the base, in float32."""

    kernel: Callable[[Block], Update]
    mask_mode: MaskMode
    has_weights: bool = False

    @classmethod
    def of(cls, rule: MergeRule) -> UpdateBlock:
        """Return the block function of a rule."""
        return cls(rule.kernel, rule.mask.mode, rule.weighted)

    def counts(self, agents: int) -> int:
        """Return the number of counts, without the health."""
        return 0

    def results(self, agents: int) -> list[DType]:
        """Return the dtypes of the resulting tensors."""
        return [DTYPES["float32"]]

    def __call__(self, base: Tensor, agents: Sequence[Tensor], arguments: Arguments) -> tuple[list[Tensor], Tensor]:
        """Return the update, and the health."""
        block = read_block(base, agents, self.mask_mode, arguments, weighted=self.has_weights)
        update = self.kernel(block)
        delta = update.delta if arguments.wanted is None else update.delta[arguments.wanted]
        return [delta], counted([], health(delta))


@dataclass(frozen=True)
class CopyBlock:
    """Copy a block of one model, 0 being the base, and count as `MergeBlock` does."""

    model: int
    has_reference: bool
    mask_mode: MaskMode
    dtype: str
    rounding: Rounding
    has_updates: bool = False

    def counts(self, agents: int) -> int:
        """Return the number of counts, without the health."""
        return _width(agents - self.has_updates, self.has_reference)

    def results(self, agents: int) -> list[DType]:
        """Return the dtypes of the resulting tensors."""
        return [DTYPES[self.dtype]]

    def __call__(self, base: Tensor, agents: Sequence[Tensor], arguments: Arguments) -> tuple[list[Tensor], Tensor]:
        """Return the model's elements in the output dtype, and `MergeBlock`'s counts. None differs from a reference."""
        block = read_block(base, agents[: len(agents) - self.has_updates], self.mask_mode, arguments)
        values = [base, *agents][self.model].float()
        rounded, rounded_base = (_rounded(each, self.dtype, self.rounding, arguments) for each in (values, block.base))
        indicators = _indicators(block, _differs(values, block.base), _differs(rounded, rounded_base))
        if self.has_reference:
            indicators.append(torch.zeros_like(block.base))
        return [rounded], counted(indicators, health(total([*block.deltas, rounded.float()])))


def _width(agents: int, has_reference: bool) -> int:
    return 3 * agents + (3 if has_reference else 2)


def _indicators(block: Block, moved: Tensor, changed: Tensor) -> list[Tensor]:
    """Return what is counted: elements that the merge `moved`, and that it `changed` after the cast, are ones."""
    only_one = (total(block.masks) == 1.0).float()
    unique = [mask * only_one for mask in block.masks]
    return [*block.masks, *unique, *(mask * changed for mask in block.masks), moved, changed]


def _rounded(values: Tensor, dtype: str, rounding: Rounding, arguments: Arguments) -> Tensor:
    return cast(values, DTYPES[dtype].torch_dtype, rounding, arguments.seeds[0], arguments.start)


def _differs(left: Tensor, right: Tensor) -> Tensor:
    return (left.float() != right.float()).float()
