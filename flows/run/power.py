"""What a recipe's items can show, said before the run: detectable differences, and gates that ask for more."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from evaluation.judging.demands import demands
from evaluation.power import CORRELATION, POWER, Items, detectable_difference
from evaluation.runners.rehearsal import Rehearsed
from flows.run.planned import Plan
from rammerge import store
from rammerge.system.atomic import write_json

_KIND, _VERSION = "demands", 2
_FILE = "sentences.json"
# Shares of the items on which a merge and what it is compared with may answer differently.
_FEW, _MANY = 0.1, 0.3


def items_of(found: Rehearsed) -> dict[str, Items]:
    """Return the test items of each suite, with what makes them related."""
    return {suite: _items(found, suite, count) for suite, count in found.test_items.items()}


def detectable(plan: Plan, suites: Mapping[str, Items]) -> Iterator[str]:
    """Yield which true differences of averages are likely to be shown; nothing if nothing is evaluated.

    Args:
        plan: what is to be done.
        suites: test items by suite.
    """
    if suites:
        few, many = (_detectable(plan, list(suites.values()), share) for share in (_FEW, _MANY))
        related = any(items.clusters for items in suites.values())
        assumed = f", related scores being correlated by {CORRELATION:g}" if related else ""
        counted = f"{sum(items.count for items in suites.values())} test {'scores' if related else 'items'}"
        yield (
            f"power: on {counted} {few} is detected with {100 * POWER:g} % "
            f"power if two models differ on {100 * _FEW:g} % of the items, and {many} if on {100 * _MANY:g} %{assumed}"
        )


def asked_by_gates(plan: Plan, suites: Mapping[str, Items]) -> list[str]:
    """Return what the gates ask of the best that a model can do on these items, where an equal model would fail.

    The answer is kept, because a run that finds everything done has no other need of SciPy.
    """
    if not suites:
        return []
    confidence = plan.recipe.evaluation.confidence

    def ask(out: Path) -> None:
        found = demands(plan.rules(), suites, confidence=confidence)
        write_json(out / _FILE, [demand.sentence for demand in found])

    items = {suite: [found.count, *found.clusters] for suite, found in suites.items()}
    inputs = {"gates": plan.gates, "code": plan.gate_code, "items": items, "confidence": confidence}
    entry = store.materialise(_KIND, store.key_of(_KIND, _VERSION, inputs), ask)
    sentences: list[str] = json.loads((entry.path / _FILE).read_text("utf-8"))
    return sentences


def _items(found: Rehearsed, suite: str, count: int) -> Items:
    answers = found.answers.get(suite, 1)
    clusters = found.test_clusters.get(suite) or ([1] * count if answers > 1 else [])
    return Items(count * answers, tuple(size * answers for size in clusters))


def _detectable(plan: Plan, suites: list[Items], share: float) -> str:
    confidence = plan.recipe.evaluation.confidence
    found = detectable_difference(suites, [share] * len(suites), confidence=confidence)
    return "no difference" if found is None else f"a difference of {100 * found:.1f} points"
