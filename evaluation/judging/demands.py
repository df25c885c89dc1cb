"""Gates that no model, or hardly any, can pass with the given numbers of items."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from evaluation.judging.gates import Claim, Gate
from evaluation.power import highest_floor, items_to_show_equal, least_gain


@dataclass(frozen=True)
class Demand:
    """A gate that fails a model which equals the other one.

    Attributes:
        possible: whether any scores pass.
        sentence: what the gate asks, and how many items would make it ask less.
    """

    possible: bool
    sentence: str


def demands(gates: Sequence[Gate], sizes: Mapping[str, int], *, confidence: float) -> Iterator[Demand]:
    """Yield the gates that an equal or a perfect model fails with these numbers of test items by suite.

    A rule that asks for a better model is left out unless no model can be shown to be better.
    """
    for gate in gates:
        for claim in gate.claims():
            for where, items in _scopes(claim, sizes):
                if demand := _demand(claim, items, f"the gate {gate.rule}", where, confidence):
                    yield demand


def _scopes(claim: Claim, sizes: Mapping[str, int]) -> Iterator[tuple[str, list[int]]]:
    if claim.suites == "average":
        yield "on average", list(sizes.values())
    elif claim.suites == "each":
        yield from ((f"on {suite}", [size]) for suite, size in sizes.items())
    else:
        yield f"on {claim.suites}", [sizes[claim.suites]]


def _demand(claim: Claim, sizes: list[int], gate: str, where: str, confidence: float) -> Demand | None:
    items = f"{sum(sizes)} test items"
    if claim.of == "score":
        highest = highest_floor(sizes, confidence=confidence)
        shown = f"{gate} asks for {claim.limit:g} {where}, but a perfect score on {items} shows only {highest:.3f}"
        return Demand(False, shown) if highest < claim.limit else None
    margin = -claim.limit
    gain = least_gain(sizes, margin, confidence=confidence)
    if gain is None:
        return Demand(False, f"{gate} cannot be passed: {items} are too few to show anything {where}")
    if gain == 0.0 or margin == 0.0:
        return None
    enough = f"{items_to_show_equal(margin, confidence=confidence)} items a suite let an equal model pass"
    least = f"a model that gains at least {gain:.3f} {where} and loses no item"
    return Demand(True, f"{gate} (margin {margin:g}) passes only {least}, because there are {items}; {enough}")
