"""What the runs say: each method untuned and tuned, over the seeds of a group, with intervals and ranks."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.results.data import Model, Run
from benchmarks.results.entries import FOUND, UNTUNED
from evaluation.statistics import Estimate, crossed_mean, macro_average, mean, paired_difference

REFERENCES = ("task_arithmetic", "ram_plus")


@dataclass(frozen=True)
class Line:
    """One method's line of a table: percent on test, and points against the best untuned method of the group."""

    name: str
    score: Estimate
    behind: Estimate | None
    rank: float
    wins: int


def untuned(run: Run) -> dict[str, Model]:
    """Return method -> its model without any tuning."""
    return {name: run.model(name) for name in UNTUNED}


def tuned(run: Run) -> dict[str, Model]:
    """Return method -> the best of its variants on validation, and `search` -> the winner of the search."""
    found = {method: _best(run, method) for method in UNTUNED}
    return {**found, "search": run.model(FOUND[0])}


def tried(run: Run) -> dict[str, int]:
    """Return method -> how many of its variants were compared on validation."""
    return {method: sum(model.method == method for model in run.variants.values()) for method in UNTUNED}


def lines(choices: Sequence[dict[str, Model]]) -> list[Line]:
    """Return a line for each method, the best first; `choices` has each run's models by method."""
    averages = {name: np.array([choice[name].average for choice in choices]) for name in choices[0]}
    order = sorted(averages, key=lambda name: -averages[name].mean())
    table = np.array([averages[name] for name in order])
    ranks = (table[:, None, :] < table[None, :, :]).sum(axis=1) + 1
    best = {name: (table.max(axis=0) - averages[name] < 1e-9) for name in order}
    return [
        Line(
            name,
            _estimate([choice[name] for choice in choices]),
            _difference([(choice[name], choice[order[0]]) for choice in choices]) if name != order[0] else None,
            float(ranks[order.index(name)].mean()),
            int(best[name].sum()),
        )
        for name in order
    ]


def difference(choices: Sequence[dict[str, Model]], ours: str, theirs: str) -> Estimate:
    """Return `ours` minus `theirs` in points, over the runs of a group."""
    return _difference([(choice[ours], choice[theirs]) for choice in choices])


def _best(run: Run, method: str) -> Model:
    variants = [model for model in run.variants.values() if model.method == method]
    return max(variants, key=lambda model: (model.validation, model.name == method, model.name))


def _estimate(models: Sequence[Model]) -> Estimate:
    if len(models) == 1:
        return _percent(macro_average([mean(scores) for scores in models[0].test.values()]))
    return _percent(crossed_mean([np.array([model.test[suite] for model in models]) for suite in models[0].test]))


def _difference(pairs: Sequence[tuple[Model, Model]]) -> Estimate:
    suites = pairs[0][0].test
    if len(pairs) == 1:
        ours, theirs = pairs[0]
        return _percent(macro_average([paired_difference(ours.test[suite], theirs.test[suite]) for suite in suites]))
    found = [np.array([ours.test[suite] - theirs.test[suite] for ours, theirs in pairs]) for suite in suites]
    return _percent(crossed_mean(found))


def _percent(found: Estimate) -> Estimate:
    return Estimate(100 * found.value, 100 * found.low, 100 * found.high, found.n, found.method)
