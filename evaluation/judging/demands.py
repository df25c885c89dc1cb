"""Gates that no model, or hardly any, can pass with the given numbers of items."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from evaluation.judging.gates import Claim, Gate
from evaluation.power import Items, highest_floor, items_to_show_equal, least_gain
from rammerge.errors import check_choice


@dataclass(frozen=True)
class Demand:
    """A gate that fails a model which equals the other one.

    Attributes:
        possible: whether any scores pass.
        sentence: what the gate asks, and how many items would make it ask less.
    """

    possible: bool
    sentence: str


def demands(gates: Sequence[Gate], suites: Mapping[str, Items], *, confidence: float) -> Iterator[Demand]:
    """Yield the gates that an equal or a perfect model fails with these test items by suite.

    A rule that asks for a better model is left out unless no model can be shown to be better.

    Raises:
        InputError: a rule of the user's own claims something of a suite that is not there.
    """
    for gate in gates:
        for claim in gate.claims():
            check_choice(f"the suite in a claim of the gate {gate.rule}", claim.suites, ["average", "each", *suites])
            for where, items in _scopes(claim, suites):
                if demand := _demand(claim, items, f"the gate {gate.rule}", where, confidence):
                    yield demand


def _scopes(claim: Claim, suites: Mapping[str, Items]) -> Iterator[tuple[str, list[Items]]]:
    if claim.suites == "average":
        yield "on average", list(suites.values())
    elif claim.suites == "each":
        yield from ((f"on {suite}", [items]) for suite, items in suites.items())
    else:
        yield f"on {claim.suites}", [suites[claim.suites]]


def _demand(claim: Claim, suites: list[Items], gate: str, where: str, confidence: float) -> Demand | None:
    items, counted = _counted(suites)
    if claim.of == "score":
        highest = highest_floor(suites, confidence=confidence)
        shown = f"{gate} asks for {claim.limit:g} {where}, but a perfect score on {items} shows only {highest:.3f}"
        return Demand(False, shown) if highest < claim.limit else None
    margin = -claim.limit
    gain = least_gain(suites, margin, confidence=confidence)
    if gain is None:
        return Demand(False, f"{gate} cannot be passed: {items} are too few to show anything {where}")
    if gain == 0.0 or margin == 0.0:
        return None
    enough = f"{items_to_show_equal(margin, confidence=confidence)} {counted} a suite let an equal model pass"
    least = f"a model that gains at least {gain:.3f} {where} and loses no item"
    return Demand(True, f"{gate} (margin {margin:g}) passes only {least}, because there are {items}; {enough}")


def _counted(suites: list[Items]) -> tuple[str, str]:
    """Return the number of items in words, and what was counted: items or clusters."""
    count = sum(suite.count for suite in suites)
    if not any(suite.clusters for suite in suites):
        return f"{count} test items", "items"
    return f"{count} test scores in {sum(len(suite.clusters) or suite.count for suite in suites)} clusters", "clusters"
