"""The advisor's data: the runs that it knows, and what its advice was worth on runs that it did not know."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from benchmarks.results.analysis import REFERENCES, untuned
from benchmarks.results.data import Run
from rammerge.overlap import advisor
from rammerge.system.atomic import write_json

DATA = Path(advisor.__file__).with_name("advisor.json")
# The merges of a real language model, and which of them are a method as this page's runs have it, untuned.
SMOLLM2 = Path("examples/smollm2/records/seed0/merges.json")
_SMOLLM2_UNTUNED = {
    "linear": "average",
    "task_arithmetic-scale1.0": "task_arithmetic",
    "ties-paper": "ties",
    "ram_plus-paper": "ram_plus",
    "ram_plus_soft-paper": "ram_plus_soft",
    **{name: name for name in ("awd", "consensus", "iso_c", "karcher", "ram", "tsv_m", "wudi")},
}
# What is left out of the runs that the advisor is asked from, and how it is told from a run.
HELD_OUT: dict[str, Callable[[Run], object]] = {"seed": lambda run: run.seed, "regime": lambda run: run.group}


def known(run: Run) -> advisor.Run:
    """Return what the advisor keeps of a run: no score was chosen, so the scores are those on test."""
    features = advisor.Features(**{name: round(value, 4) for name, value in asdict(run.features).items()})
    return advisor.Run(run.name, features, {name: round(model.average, 2) for name, model in untuned(run).items()})


def language_model(file: Path = SMOLLM2) -> advisor.Run:
    """Return the run of SmolLM2, merged in float32 as the runs of this page are."""
    content = json.loads(file.read_text(encoding="utf-8"))
    scores = {row["name"]: round(100 * row["test"]["average"]["value"], 2) for row in content["output"]["float32"]}
    untuned_scores = {method: scores[variant] for variant, method in sorted(_SMOLLM2_UNTUNED.items())}
    return advisor.Run("smollm2", advisor.Features(**content["features"]), untuned_scores)


def advised(runs: Sequence[Run], held_out: str) -> dict[str, advisor.Advice]:
    """Return for each run what the advisor says from the runs of other seeds, or of other regimes."""
    key = HELD_OUT[held_out]
    found = {}
    for run in runs:
        others = [known(other) for other in runs if key(other) != key(run)]
        if others:
            found[run.name] = advisor.advise(run.features, others)
    return found


def judge(runs: Sequence[Run], held_out: str) -> advisor.Record | None:
    """Return what the advice was worth; None if there is nothing to leave out."""
    told = advised(runs, held_out)
    asked = [run for run in runs if run.name in told]
    if not asked:
        return None
    regrets = [regret(run, told[run.name].best) for run in asked]
    return advisor.Record(
        held_out=held_out,
        runs=len(asked),
        hits=sum(value <= advisor.CLOSE for value in regrets),
        losers=sum(_rank(run, told[run.name].worst) <= advisor.LAST for run in asked),
        regret=round(float(np.mean(regrets)), 2),
        always={name: round(float(np.mean([regret(run, name) for run in asked])), 2) for name in REFERENCES},
    )


def regret(run: Run, method: str) -> float:
    """Return by how many points a method is below the best untuned one."""
    scores = {name: model.average for name, model in untuned(run).items()}
    return max(scores.values()) - scores[method]


def _rank(run: Run, method: str) -> int:
    """Return a method's place from the end: 1 is the worst."""
    scores = {name: model.average for name, model in untuned(run).items()}
    return 1 + sum(score < scores[method] for score in scores.values())


def write_advisor(runs: Sequence[Run], file: Path = DATA) -> None:
    """Write the advisor's data. It knows the language model too, but its record is from this page's runs alone."""
    records = [record for record in (judge(runs, held_out) for held_out in HELD_OUT) if record is not None]
    told = [language_model(), *map(known, runs)]
    write_json(file, {"runs": list(map(asdict, told)), "records": list(map(asdict, records))})
