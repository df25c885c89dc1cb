"""What a merge method is: a pure kernel on tensors, typed parameters, named presets, and the statistics it needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

from pydantic import BaseModel, ConfigDict

from rammerge.numerics.masks import Mask, MaskMode

if TYPE_CHECKING:
    from torch import Tensor

Pass = Literal["overlap", "magnitude"]


class Params(BaseModel):
    """Parameters of a method. The fields are the schema: names, types, bounds, defaults and descriptions."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    def mask(self) -> Mask:
        """Return the mask that counts and reports use; methods that have none of their own use the paper's."""
        return Mask()


class Block(Protocol):
    """One run of elements of one tensor, as a kernel sees it. All tensors are float32 of shape [n]."""

    @property
    def base(self) -> Tensor:
        """The base's elements."""

    @property
    def deltas(self) -> Sequence[Tensor]:
        """Each agent's task vector, in the recipe's order."""

    @property
    def masks(self) -> Sequence[Tensor]:
        """1 where that agent changed the element and 0 elsewhere."""

    @property
    def coefficients(self) -> Tensor:
        """Float32 [rows, agents]: what the method's `coefficients` returned."""

    def uniform(self, agent: int) -> Tensor:
        """Random numbers in [0, 1) that depend on run seed, agent, tensor name and element alone."""


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


class Statistics(Protocol):
    """Global statistics that earlier passes made, as `coefficients` asks for them."""

    def shared_and_unique(self, tensor: str | None) -> Sequence[tuple[int, int]]:
        """Per agent: shared and unique elements, of one tensor or (None) of the whole model."""

    def magnitude_thresholds(self, tensor: str | None) -> Sequence[float]:
        """Per agent: the smallest magnitude that trimming keeps, of one tensor or (None) of the whole model."""


@dataclass(frozen=True)
class Method:
    """A merge rule.

    Attributes:
        name: as recipes and the command line call it.
        summary: one sentence.
        source: where the formula comes from.
        params: the parameters' model.
        kernel: the rule itself, a pure function of a block.
        coefficients: (parameters, statistics, tensor name, number of agents) -> rows of one number per agent, what the
            kernel reads as `block.coefficients`.
        passes: the statistics that must be made before merging.
        presets: named parameter sets.
        preset_sources: where each preset comes from.
        trimmed: the task vectors, float32 [n] per agent, whose magnitudes the `magnitude` pass ranks.
        improves_on: the method that the kernel's `reference` computes.
    """

    name: str
    summary: str
    source: str
    params: type[Params]
    kernel: Callable[[Block], Update]
    coefficients: Callable[[Any, Statistics, str, int], Sequence[Sequence[float]]]
    passes: Callable[[Any], frozenset[Pass]] = field(default=lambda _: frozenset())
    presets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    preset_sources: Mapping[str, str] = field(default_factory=dict)
    trimmed: Callable[[Block], Sequence[Tensor]] | None = None
    improves_on: str | None = None


@dataclass(frozen=True)
class ResolvedMethod:
    """A method with all its parameters settled; what cache keys and `rammerge.json` are made of."""

    name: str
    preset: str | None
    params: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Return the same as plain JSON."""
        return {"method": self.name, "preset": self.preset, "params": dict(self.params)}


def mask_from(mode: MaskMode, epsilon: float, eta: float, ulps: int) -> Mask:
    """Return the mask that the RAM family's parameters describe."""
    thresholds = {"abs": epsilon, "exact": 0.0, "relative": eta, "ulp": float(ulps)}
    return Mask(mode, thresholds[mode])
