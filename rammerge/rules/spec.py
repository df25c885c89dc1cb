"""The definition of a merge method, and the rule that the engine runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import Any

from pydantic import BaseModel, ConfigDict

from rammerge.engine.blocks import Block, Rows, Update
from rammerge.engine.passes.statistics import Pass, Statistics
from rammerge.errors import InputError
from rammerge.numerics.masks import Mask
from rammerge.overlap import Survival
from rammerge.system.reached import code_digest


class Params(BaseModel):
    """Parameters of a method. The fields are the schema: names, types, bounds, defaults and descriptions."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    def mask(self) -> Mask:
        """Return the mask for counts and reports. Methods without a mask use the paper's."""
        return Mask()


@dataclass(frozen=True)
class Method:
    """A merge rule with open parameters.

    Attributes:
        name: its name in recipes and on the command line.
        summary: one sentence.
        source: the source of the formula.
        params: the class of the parameters.
        kernel: the formula, which is a pure function of a module.
        alternative: (parameters) -> a formula in place of `kernel`, for parameters that need a slower one, or None.
        coefficients: (parameters, statistics, tensor name, number of agents) -> rows of one number per agent. The
            kernel reads them as `block.coefficients`.
        height: the number of rows of coefficients.
        by_rows: whether the kernel needs whole rows of a tensor, of `block.row` elements. It then runs eagerly.
        passes: (parameters, number of agents) -> the statistics that `coefficients` reads.
        factors: (parameters, statistics, number of agents) -> the factor of each agent's unique changes, for reports;
            None if the method has none that holds for the whole model.
        misfits: (changed and unique elements by agent, elements of the model) -> a sentence for each agent that the
            method fits poorly.
        cautions: (parameters, statistics) -> sentences about agents for which this method is not worth its name.
        improves_on: the method that the kernel's `reference` computes.
        presets: named parameter sets.
        preset_sources: where each preset comes from.
    """

    name: str
    summary: str
    source: str
    params: type[Params]
    kernel: Callable[[Block], Update]
    alternative: Callable[[Any], Callable[[Block], Update] | None] = lambda _params: None
    coefficients: Callable[[Any, Statistics, str, int], Rows] = lambda _params, _statistics, _tensor, n: [[1.0] * n]
    height: int = 1
    by_rows: bool = False
    passes: Callable[[Any, int], Sequence[Pass[Any]]] = lambda _params, _agents: ()
    factors: Callable[[Any, Statistics, int], Sequence[float] | None] = lambda _params, _statistics, _n: None
    misfits: Callable[[Mapping[str, tuple[int, int]], int], list[str]] = lambda _counts, _elements: []
    cautions: Callable[[Any, Statistics], list[str]] = lambda _params, _statistics: []
    improves_on: str | None = None
    presets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    preset_sources: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def code(self) -> str | None:
        """A digest of the code of a method that is not rammerge's own, else None.

        It goes where the name goes, because a name says nothing about what a user's file contains today.
        """
        formula = (self.params, self.kernel, self.alternative, self.coefficients)
        parts = (*formula, self.passes, self.factors, self.misfits, self.cautions)
        own = [part for part in parts if part.__module__.partition(".")[0] != "rammerge"]
        return code_digest(*own) if own else None


@dataclass(frozen=True)
class ResolvedMethod:
    """A method with settled parameters. Cache keys and `rammerge.json` contain it."""

    method: Method
    preset: str | None
    settled: Params

    @property
    def name(self) -> str:
        """The method's name in recipes and on the command line."""
        return self.method.name

    @cached_property
    def params(self) -> Mapping[str, Any]:
        """The parameters as plain values."""
        return MappingProxyType(self.settled.model_dump())

    def bind(self, agents: Iterable[str]) -> Rule:
        """Return the rule that merges `agents`, in their order."""
        return Rule(self, tuple(agents))

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain JSON."""
        content = {"method": self.name, "preset": self.preset, "params": dict(self.params)}
        return content if self.method.code is None else content | {"code": self.method.code}


@dataclass(frozen=True)
class Rule:
    """A method with settled parameters and agents. The engine runs it, and reports describe it.

    Attributes:
        settled: the method and its parameters.
        agents: the agents' names, in the order of summation.
    """

    settled: ResolvedMethod
    agents: tuple[str, ...]

    @property
    def name(self) -> str:
        """The method's name in recipes and on the command line."""
        return self.settled.name

    @property
    def kernel(self) -> Callable[[Block], Update]:
        """The formula."""
        return self.settled.method.alternative(self.settled.settled) or self.settled.method.kernel

    @property
    def height(self) -> int:
        """The number of rows of coefficients that the kernel reads."""
        return self.settled.method.height

    @property
    def by_rows(self) -> bool:
        """Whether the kernel needs whole rows of a tensor."""
        return self.settled.method.by_rows

    @property
    def improves_on(self) -> str | None:
        """The method that the kernel's `reference` computes."""
        return self.settled.method.improves_on

    @cached_property
    def mask(self) -> Mask:
        """The mask of changed elements."""
        return self.settled.settled.mask()

    @cached_property
    def passes(self) -> tuple[Pass[Any], ...]:
        """The statistics that `rows` reads."""
        return tuple(self.settled.method.passes(self.settled.settled, len(self.agents)))

    def rows(self, tensor: str, statistics: Statistics) -> Rows:
        """Return the coefficients of a tensor.

        Raises:
            InputError: the method returns a different number of rows or columns than it declares.
        """
        rows = self.settled.method.coefficients(self.settled.settled, statistics, tensor, len(self.agents))
        if [len(row) for row in rows] != [len(self.agents)] * self.height:
            raise InputError(
                f"method '{self.name}' returned coefficients of {[len(row) for row in rows]} numbers for '{tensor}'; "
                f"it declares {self.height} rows of one for each of {len(self.agents)} agents: correct the method"
            )
        return rows

    def factors(self, statistics: Statistics) -> dict[str, float] | None:
        """Return each agent's factor (RAM's lambda), when the method has one for the whole model."""
        found = self.settled.method.factors(self.settled.settled, statistics, len(self.agents))
        return None if found is None else dict(zip(self.agents, found, strict=True))

    def misfits(self, survival: Survival, elements: int) -> list[str]:
        """Return a sentence for each agent that the method fits poorly, in a model of `elements` float elements."""
        counts = {name: (agent.active, agent.unique) for name, agent in survival.agents.items()}
        return self.settled.method.misfits(counts, elements)

    def cautions(self, statistics: Statistics) -> list[str]:
        """Return sentences about agents for which the method is not worth its name."""
        return self.settled.method.cautions(self.settled.settled, statistics)

    def to_json(self) -> dict[str, Any]:
        """Return method, preset and parameters as plain JSON."""
        return self.settled.to_json()
