"""The definition of a merge method."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from pydantic import BaseModel, ConfigDict

from rammerge.engine.blocks import Block, Rows, Update
from rammerge.engine.matrices.method import MatrixMethod
from rammerge.engine.passes.statistics import Pass, Statistics
from rammerge.numerics.masks import Mask
from rammerge.overlap import Gram
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
        by_rows: whether the kernel needs whole rows of a tensor, for `block.places`.
        passes: (parameters, number of agents) -> the statistics that `coefficients` reads.
        factors: (parameters, statistics, number of agents) -> the factor of each agent's unique changes, for reports;
            None if the method has none that holds for the whole model.
        refuses_weights: why agents have no weights of their own, as a sentence with the way out; None if they do.
        shares_weights: whether weights are divided by their mean, so that only their ratios count.
        misfits: (changed and unique elements by agent, elements of the model) -> a sentence for each agent that the
            method fits poorly.
        cautions: (parameters, statistics) -> sentences about agents for which this method is not worth its name.
        forewarns: (inner products of the task vectors) -> sentences of the same kind for a method that does not read
            these itself, told where they are known.
        low_rank: what it does to agents that changed matrices in few directions, as the end of a sentence with what to
            do; None if that does no harm.
        improves_on: the method that the kernel's `reference` computes.
        matrices: (parameters) -> how whole matrices are merged, if they are. The kernel then merges other tensors.
        refuses_steps: why no step may follow, as a sentence with the way out; None if they may.
        needs_prompts: whether it needs data: what flows through the base's layers on unlabeled prompts.
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
    refuses_weights: str | None = None
    shares_weights: bool = False
    misfits: Callable[[Mapping[str, tuple[int, int]], int], list[str]] = lambda _counts, _elements: []
    cautions: Callable[[Any, Statistics], list[str]] = lambda _params, _statistics: []
    forewarns: Callable[[Gram], list[str]] = lambda _gram: []
    low_rank: str | None = None
    improves_on: str | None = None
    matrices: Callable[[Any], MatrixMethod] | None = None
    refuses_steps: str | None = None
    needs_prompts: bool = False
    presets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    preset_sources: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def code(self) -> str | None:
        """A digest of the code of a method that is not rammerge's own, else None.

        It goes where the name goes, because a name says nothing about what a user's file contains today.
        """
        formula = (self.params, self.kernel, self.alternative, self.coefficients)
        parts = (*formula, self.passes, self.factors, self.misfits, self.cautions)
        own = [part for part in (*parts, self.matrices) if part and part.__module__.partition(".")[0] != "rammerge"]
        return code_digest(*own) if own else None
