"""The last run of each recipe as metrics in Prometheus's text format, from what is kept of past runs."""

from collections.abc import Iterator
from typing import Any

from flows.run.past import Past, past_runs, recipes

_METRICS: dict[str, tuple[str, tuple[str, ...]]] = {
    "rammerge_runs": ("Runs that ended, of those that are remembered.", ("end",)),
    "rammerge_run_end_timestamp_seconds": ("When the last run ended.", ()),
    "rammerge_run_duration_seconds": ("How long the last run took.", ()),
    "rammerge_run_passed": ("1 if the last run passed its gates, 0 if it was refused or failed.", ()),
    "rammerge_steps": ("Steps of the last run, by how they ended.", ("step", "state")),
    "rammerge_step_duration_seconds": ("How long the steps of a kind took that were done in the last run.", ("step",)),
    "rammerge_cache_hit_ratio": ("Share of the last run's steps that were done before.", ()),
    "rammerge_merged_bytes": ("Bytes of weights that the last run's merges wrote.", ()),
    "rammerge_evaluated_tokens": ("Tokens of the prompts and answers of the models that the last run evaluated.", ()),
    "rammerge_evaluated_tokens_per_second": ("The same for each second of evaluation.", ()),
    "rammerge_gate_passed": ("1 for each gate of the last evaluated run that passed, else 0.", ("gate",)),
    "rammerge_score": ("Average on the test split in the last evaluated run, from 0 to 1.", ("role", "bound")),
    "rammerge_champion_version": ("The version that serves after the last run.", ("model",)),
}


def names() -> set[str]:
    """Return the names of all metrics."""
    return set(_METRICS)


def exposition() -> str:
    """Return the metrics of all recipes that ran in this home; the label `recipe` tells them apart."""
    from prometheus_client import CollectorRegistry, generate_latest

    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Runs())
    return generate_latest(registry).decode()


class _Runs:
    """Collects from what is kept, each time anew."""

    def collect(self) -> Iterator[Any]:
        """Yield each metric with its samples."""
        from prometheus_client.core import GaugeMetricFamily

        families = {
            name: GaugeMetricFamily(name, words, labels=["recipe", *labels])
            for name, (words, labels) in _METRICS.items()
        }
        for recipe in recipes():
            for name, labels, value in _samples(past_runs(recipe)):
                families[name].add_metric([recipe, *labels], value)
        yield from families.values()


def _samples(runs: list[Past]) -> Iterator[tuple[str, tuple[str, ...], float]]:
    """Yield name, labels and value of each sample of a recipe."""
    if not runs:
        return
    ends = [run.end for run in runs]
    yield from (("rammerge_runs", (end,), ends.count(end)) for end in sorted(set(ends)))
    last = runs[-1]
    counts = [(step, state, n) for step, states in last.steps.items() for state, n in states.items()]
    plain = {
        "run_end_timestamp_seconds": last.started + last.seconds,
        "run_duration_seconds": last.seconds,
        "run_passed": float(last.end in ("passed", "not evaluated")),
        "merged_bytes": float(last.merged_bytes),
        "evaluated_tokens": float(last.tokens),
    }
    if last.evaluated_seconds:
        plain["evaluated_tokens_per_second"] = last.tokens / last.evaluated_seconds
    if total := sum(n for _, _, n in counts):
        plain["cache_hit_ratio"] = sum(n for _, state, n in counts if state == "cached") / total
    yield from ((f"rammerge_{name}", (), value) for name, value in plain.items())
    yield from (("rammerge_steps", (step, state), n) for step, state, n in counts)
    yield from (("rammerge_step_duration_seconds", (step,), value) for step, value in last.step_seconds.items())
    yield from _judged(next((run for run in reversed(runs) if run.gates or run.challenger), last))
    # A run that failed does not know who serves; whoever did before it does.
    served = next((run for run in reversed(runs) if run.model and run.champion_version is not None), None)
    if served and served.model and served.champion_version is not None:
        yield "rammerge_champion_version", (served.model,), served.champion_version


def _judged(run: Past) -> Iterator[tuple[str, tuple[str, ...], float]]:
    yield from (("rammerge_gate_passed", (gate,), float(passed)) for gate, passed in run.gates.items())
    for role, score in {"challenger": run.challenger, "champion": run.champion}.items():
        if score is not None:
            yield from (("rammerge_score", (role, bound), value) for bound, value in score.model_dump().items())
