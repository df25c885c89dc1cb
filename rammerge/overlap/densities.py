"""Densities of changes by several rules, which say why an agent is sparse."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Densities:
    """Share of one agent's elements that changed, by several rules.

    Attributes:
        dtypes: stored dtype -> elements that have it.
        above: epsilon -> share with |delta| > epsilon.
        relative: share whose change exceeds 1e-3 of the weight.
        exact: share that differs once cast to the base's dtype.
        hidden: share of the changes, however small, that bfloat16 hides: smaller than half a step of it.
    """

    dtypes: Mapping[str, int]
    above: Mapping[str, float]
    relative: float
    exact: float
    hidden: float
