"""What a recipe's items can show, said before the run: detectable differences, and gates that ask for more."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from evaluation.judging.demands import demands
from evaluation.power import POWER, detectable_difference
from flows.run.planning import Plan
from rammerge import store
from rammerge.system.atomic import write_json

_KIND, _VERSION = "demands", 1
_FILE = "sentences.json"
# Shares of the items on which a merge and what it is compared with may answer differently.
_FEW, _MANY = 0.1, 0.3


def detectable(plan: Plan, test_items: Mapping[str, int]) -> Iterator[str]:
    """Yield which true differences of averages are likely to be shown; nothing if nothing is evaluated.

    Args:
        plan: what is to be done.
        test_items: number of test items by suite.
    """
    if test_items:
        few, many = (_points(plan, list(test_items.values()), share) for share in (_FEW, _MANY))
        yield (
            f"power: on {sum(test_items.values())} test items a difference of {few} points is detected with "
            f"{POWER:.0%} power if two models differ on {_FEW:.0%} of the items, and of {many} points if on {_MANY:.0%}"
        )


def asked_by_gates(plan: Plan, test_items: Mapping[str, int]) -> list[str]:
    """Return what the gates ask of the best that a model can do on these items, where an equal model would fail.

    The answer is kept, because a run that finds everything done has no other need of SciPy.
    """
    if not test_items:
        return []
    confidence = plan.recipe.evaluation.confidence

    def ask(out: Path) -> None:
        found = demands(plan.rules(), test_items, confidence=confidence)
        write_json(out / _FILE, [demand.sentence for demand in found])

    inputs = {"gates": plan.gates, "code": plan.gate_code, "items": dict(test_items), "confidence": confidence}
    entry = store.materialise(_KIND, store.key_of(_KIND, _VERSION, inputs), ask)
    sentences: list[str] = json.loads((entry.path / _FILE).read_text("utf-8"))
    return sentences


def _points(plan: Plan, sizes: list[int], share: float) -> str:
    confidence = plan.recipe.evaluation.confidence
    return f"{100 * detectable_difference(sizes, [share] * len(sizes), confidence=confidence):.1f}"
