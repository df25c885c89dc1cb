"""A method with everything settled, and the rule that the engine runs: that method for certain agents."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from rammerge.activations.prompts import Prompts
from rammerge.engine.blocks import Block, Rows, Update
from rammerge.engine.matrices.method import MatrixMethod
from rammerge.engine.passes.overlap import known_from
from rammerge.engine.passes.statistics import Pass, Statistics
from rammerge.errors import InputError, closest
from rammerge.numerics.masks import Mask
from rammerge.overlap import Overlap, Survival
from rammerge.rules.spec import Method, Params
from rammerge.rules.spectral.steps import ChosenStep, followed
from rammerge.rules.tensors import TensorRule, check_matches, check_models

if TYPE_CHECKING:
    from rammerge.checkpoints.family import Family


@dataclass(frozen=True)
class ResolvedMethod:
    """A method with settled parameters. Cache keys and `rammerge.json` contain it.

    Attributes:
        method: the method.
        preset: the preset that was chosen.
        settled: the parameters.
        weights: agent -> factor of its task vector, for those that have one; the others have 1.
        tensors: what is done with some tensors instead. Of the rules that match a tensor the first holds.
        then: what is done with each matrix of the result.
        prompts: what the base reads, for a method that needs data.
        plain: agents whose factor was given as 1. It changes nothing, so no identity has it, but they must exist.
    """

    method: Method
    preset: str | None
    settled: Params
    weights: Mapping[str, float] = field(default_factory=dict)
    tensors: tuple[TensorRule, ...] = ()
    then: tuple[ChosenStep, ...] = ()
    prompts: Prompts | None = None
    plain: frozenset[str] = field(default=frozenset(), compare=False)

    @property
    def name(self) -> str:
        """The method's name in recipes and on the command line."""
        return self.method.name

    @cached_property
    def params(self) -> Mapping[str, Any]:
        """The parameters as plain values."""
        return MappingProxyType(self.settled.model_dump())

    @property
    def whole_matrices(self) -> bool:
        """Whether whole matrices are multiplied, whose updates are kept beside the merge until it ends."""
        return bool(self.method.matrices or self.then)

    def undone(self, parameters: Collection[str]) -> list[str]:
        """Return a sentence for each of these parameters that has next to no effect because of a later step."""
        return [sentence for chosen in self.then for name, sentence in chosen.step.undone.items() if name in parameters]

    def bind(self, agents: Iterable[str]) -> Rule:
        """Return the rule that merges `agents`, in their order.

        Raises:
            InputError: a weight or a rule for tensors names a model that is not there.
        """
        rule = Rule(self, tuple(agents))
        for name in (*self.weights, *sorted(self.plain)):
            if name not in rule.agents:
                hint = closest(name, rule.agents) or f"; the agents are {', '.join(rule.agents)}"
                raise InputError(f"the weight of '{name}' belongs to no agent{hint}")
        check_models(self.tensors, rule.agents)
        return rule

    def bind_to(self, family: Family) -> Rule:
        """Return the rule that merges a family.

        Raises:
            InputError: as of `bind` and of `check_prompts`, or a rule for tensors matches none.
        """
        self.check_prompts(family.agents)
        check_matches(self.tensors, family.floats, family.base.tied)
        return self.bind(family.agents)

    def check_prompts(self, agents: Collection[str]) -> None:
        """Check that there are prompts if the method needs data, and that they belong to the agents.

        Raises:
            InputError: prompts are missing for the method or for an agent, or one names an unknown agent.
        """
        if self.prompts is not None:
            self.prompts.check_agents(agents)
        elif self.method.needs_prompts:
            raise InputError(
                f"method '{self.name}' needs data: give a file of unlabeled prompts, one on each line, by "
                "`prompts: FILE` in a recipe, --prompts FILE, or prompts=FILE in Python"
            )

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain JSON. What was not given does not appear."""
        content = {
            "method": self.name,
            "preset": self.preset,
            "params": dict(self.params),
            "code": self.method.code,
            "weights": dict(self.weights),
            "tensors": [rule.to_json() for rule in self.tensors],
            "then": [step.to_json() for step in self.then],
            "prompts": self.prompts.to_json() if self.prompts else None,
        }
        return {key: value for key, value in content.items() if value or key in ("method", "preset", "params")}


@dataclass(frozen=True)
class Rule:
    """A method with settled parameters and agents. The engine runs it, and reports describe it.

    Attributes:
        settled: the method and its parameters.
        agents: the agents' names, in the order of summation.
        copied: the model to copy instead of merging: 0 is the base, 1 the first agent.
    """

    settled: ResolvedMethod
    agents: tuple[str, ...]
    copied: int | None = None

    def part(self, tensor: str) -> Rule:
        """Return the rule for one tensor."""
        parts = zip(self.settled.tensors, self._parts, strict=True)
        return next((part for rule, part in parts if rule.matches(tensor)), self)

    @cached_property
    def _parts(self) -> tuple[Rule, ...]:
        """The rule of each pattern of tensors."""
        return tuple(map(self._part, self.settled.tensors))

    def _part(self, rule: TensorRule) -> Rule:
        if rule.use is not None:
            return Rule(replace(self.settled, tensors=()), self.agents, ("base", *self.agents).index(rule.use))
        params = self.settled.method.params.model_validate({**self.settled.params, **rule.params})
        return Rule(replace(self.settled, settled=params, tensors=()), self.agents)

    @property
    def name(self) -> str:
        """The method's name in recipes and on the command line."""
        return self.settled.name

    @property
    def kernel(self) -> Callable[[Block], Update]:
        """The formula."""
        return self.settled.method.alternative(self.settled.settled) or self.settled.method.kernel

    @cached_property
    def weights(self) -> tuple[float, ...]:
        """The factor of each agent's task vector; empty if all are 1."""
        weights = [self.settled.weights.get(name, 1.0) for name in self.agents]
        if self.settled.method.shares_weights:
            mean = math.fsum(weights) / len(weights)
            weights = [weight / mean for weight in weights]
        return () if all(weight == 1.0 for weight in weights) else tuple(weights)

    @property
    def weighted(self) -> bool:
        """Whether the last row of coefficients are factors of the task vectors."""
        return bool(self.weights)

    @property
    def height(self) -> int:
        """The number of rows of coefficients."""
        return self.settled.method.height + self.weighted

    @property
    def by_rows(self) -> bool:
        """Whether the kernel needs whole rows of a tensor."""
        return self.settled.method.by_rows and self.copied is None

    @property
    def improves_on(self) -> str | None:
        """The method that the kernel's `reference` computes. The result of further steps has no reference."""
        return None if self.settled.then else self.settled.method.improves_on

    @cached_property
    def matrices(self) -> tuple[MatrixMethod, ...]:
        """How whole matrices are merged, if they are: by the first of these that applies."""
        method = self.settled.method.matrices
        return followed([method(self.settled.settled)] if method else [], self.settled.then)

    @cached_property
    def mask(self) -> Mask:
        """The mask of changed elements."""
        return self.settled.settled.mask()

    @cached_property
    def passes(self) -> tuple[Pass[Any], ...]:
        """The statistics that `rows` of this rule and of its parts read."""
        return tuple(dict.fromkeys(each for rule in (self, *self._parts) for each in rule._wanted.values()))

    @cached_property
    def _wanted(self) -> Mapping[Pass[Any], Pass[Any]]:
        """Each statistic that the method asks for -> the same of task vectors with their weights."""
        if self.copied is not None:
            return {}
        asked = self.settled.method.passes(self.settled.settled, len(self.agents))
        return {each: each.weighted(self.weights) if self.weights else each for each in asked}

    def _answers(self, statistics: Statistics) -> Statistics:
        return Statistics({asked: statistics[measured] for asked, measured in self._wanted.items()})

    def rows(self, tensor: str, statistics: Statistics) -> Rows:
        """Return the coefficients of a tensor.

        Raises:
            InputError: the method returns a different number of rows or columns than it declares.
        """
        method, agents = self.settled.method, len(self.agents)
        if self.copied is not None:
            return [[0.0] * agents] * self.height
        rows = method.coefficients(self.settled.settled, self._answers(statistics), tensor, agents)
        if [len(row) for row in rows] != [agents] * method.height:
            raise InputError(
                f"method '{self.name}' returned coefficients of {[len(row) for row in rows]} numbers for '{tensor}'; "
                f"it declares {method.height} rows of one for each of {agents} agents: correct the method"
            )
        return [*rows, self.weights] if self.weights else rows

    def factors(self, statistics: Statistics) -> dict[str, float] | None:
        """Return each agent's factor (RAM's lambda), when the method has one for the whole model."""
        found = self.settled.method.factors(self.settled.settled, self._answers(statistics), len(self.agents))
        return None if found is None else dict(zip(self.agents, found, strict=True))

    def misfits(self, survival: Survival, elements: int) -> list[str]:
        """Return a sentence for each agent that the method fits poorly, in a model of `elements` float elements."""
        counts = {name: (agent.active, agent.unique) for name, agent in survival.agents.items()}
        return self.settled.method.misfits(counts, elements)

    def cautions(self, statistics: Statistics) -> list[str]:
        """Return sentences about agents for which the method is not worth its name."""
        said = self.settled.method.cautions(self.settled.settled, self._answers(statistics))
        return [*said, *self.settled.undone([name for name, value in self.settled.params.items() if value != 1.0])]

    def forewarnings(self, overlap: Overlap) -> list[str]:
        """Return the cautions that can be given before the merge, from the agents' overlap alone."""
        known = known_from(overlap, self.agents, self.mask)
        answered = all(known.find(each) is not None for each in self._wanted.values())
        method, settled = self.settled.method, self.settled.settled
        said = method.cautions(settled, self._answers(known)) if answered else []
        return [*said, *(method.forewarns(overlap.gram) if overlap.gram else [])]

    def to_json(self) -> dict[str, Any]:
        """Return method, preset and parameters as plain JSON."""
        return self.settled.to_json()
