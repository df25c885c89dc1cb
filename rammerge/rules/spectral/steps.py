"""Steps after a method: what is done with each matrix of its update."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from rammerge.engine.matrices.method import Grams, MatrixMethod, Multiplier, Solution, added, times
from rammerge.engine.matrices.view import MatrixView
from rammerge.rules.spec import Params

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Merged:
    """The inner products of the rows of a merged matrix D, and of the task vectors that it was made of.

    Attributes:
        view: the tensor.
        own: float64 [short, short], D D^T.
        with_agents: D tau_t^T for each agent.
        agents: tau_t tau_t^T.
    """

    view: MatrixView
    own: Tensor
    with_agents: Sequence[Tensor]
    agents: Sequence[Tensor]

    def multiplied(self, multiplier: Tensor) -> Merged:
        """Return those of multiplier * D."""
        own = multiplier @ self.own @ multiplier.T
        return Merged(self.view, _symmetric(own), [multiplier @ each for each in self.with_agents], self.agents)


@dataclass(frozen=True)
class ThenStep:
    """Something that is done with each matrix of a method's update, whatever the method.

    Attributes:
        name: its name in recipes and on the command line.
        summary: one sentence.
        source: the source of the formula.
        params: the class of the parameters.
        multiplier: (parameters, inner products) -> float64 [short, short], by which it multiplies the matrix.
        matrices: how many float64 matrices [short, short] it holds beside the inner products.
        undone: parameter of methods that has next to no effect before this step -> the sentence that says so.
    """

    name: str
    summary: str
    source: str
    params: type[Params]
    multiplier: Callable[[Any, Merged], Tensor]
    matrices: float
    undone: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ChosenStep:
    """A step with settled parameters."""

    step: ThenStep
    params: Params

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON, as recipes write it."""
        return {self.step.name: self.params.model_dump()}


def followed(methods: Sequence[MatrixMethod], steps: Sequence[ChosenStep]) -> tuple[MatrixMethod, ...]:
    """Return how matrices are merged by `methods`, or by the kernel where none applies, and then by `steps`."""
    if not steps:
        return tuple(methods)
    beside = max(chosen.step.matrices for chosen in steps) + (len(steps) > 1) * 2.0

    def of_update(agents: int, _: MatrixView) -> float:
        return 2 * agents + 2 + beside

    on_update = MatrixMethod(partial(_of_update, steps), of="update", matrices=of_update)
    return (*(_followed(method, steps, beside) for method in methods), on_update)


def _followed(method: MatrixMethod, steps: Sequence[ChosenStep], beside: float) -> MatrixMethod:
    def matrices(agents: int, view: MatrixView) -> float:
        pairs = agents * (agents + 1) / 2  # which the step needs after the method
        return pairs + max(method.matrices(agents, view), 2 * agents + 2 + beside)

    of_sum = method.of == "sum"
    return MatrixMethod(partial(_of_agents, method.solve, of_sum, steps), "agents", matrices, method.takes)


def _of_update(steps: Sequence[ChosenStep], grams: Grams) -> list[Tensor]:
    last = len(grams) - 1
    with_agents = [grams[last, agent] for agent in range(last)]
    merged = Merged(grams.view, _symmetric(grams[last, last]), with_agents, [grams[at, at] for at in range(last)])
    return [_multiplier(merged, steps)]


def _of_agents(
    solve: Callable[[Grams], Solution], of_sum: bool, steps: Sequence[ChosenStep], grams: Grams
) -> list[Multiplier]:
    """Multiply the result of a method. It is a sum of multiplier times task vector, so inner products tell all."""
    agents = range(len(grams))
    found = solve(replace(grams, pairs={(0, 0): grams.total()} if of_sum else dict(grams.pairs)))
    assert not callable(found), "a method without multipliers refuses steps"
    multipliers = [*found] * (len(grams) if of_sum else 1)
    with_agents = [added(multipliers[i] @ grams[i, agent] for i in agents) for agent in agents]
    own = added(multiplier @ part.T for part, multiplier in zip(with_agents, multipliers, strict=True))
    merged = Merged(grams.view, _symmetric(own), with_agents, [grams[agent, agent] for agent in agents])
    factor = _multiplier(merged, steps)
    return [times(factor, multiplier) for multiplier in multipliers]


def _multiplier(merged: Merged, steps: Sequence[ChosenStep]) -> Tensor:
    """Return the product of the steps' multipliers."""
    first, *others = steps
    found = first.step.multiplier(first.params, merged)
    for chosen in others:
        found = chosen.step.multiplier(chosen.params, merged.multiplied(found)) @ found
    return found


def _symmetric(gram: Tensor) -> Tensor:
    return (gram + gram.T) / 2
