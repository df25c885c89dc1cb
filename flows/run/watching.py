"""Watch a run: log the end of each step, and when the run ends, tell metrics and trends what it came to."""

import logging
import os
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

from prefect import State, get_run_logger
from prefect.runtime import flow_run

from evaluation.judging.leaderboard import CHAMPION
from flows.run import metrics, trend
from flows.run.outcome import Outcome
from flows.run.past import Past, Score
from flows.run.planned import Plan
from rammerge.recipe import Recipe
from rammerge.system.atomic import write_text
from tasks.records.registry import TAG_VARIANT, find_champion
from tasks.runtime.logs import EVENTS
from tasks.runtime.progress import Event, listening
from tasks.steps.evaluating import Scores
from tasks.steps.merging import Merged

_METRICS = "RAMMERGE_METRICS"
_LEVELS = {"failed": logging.ERROR, "skipped": logging.WARNING}


class Tally:
    """Counts what the steps of a run did. It is called from many threads."""

    def __init__(self, recipe: str) -> None:
        """Begin to count for a run of `recipe`."""
        self.started = time.time()
        self.about = {"run": str(flow_run.id), "recipe": recipe}
        self.steps: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.merged_bytes = self.tokens = 0
        self.evaluated_seconds = 0.0
        self._lock = threading.Lock()

    def __call__(self, event: Event) -> None:
        """Count the end of a step, and log it."""
        if event.state == "running":
            return
        seconds = getattr(event.result, "seconds", None) if event.state == "done" else None
        about = {**self.about, "step": event.kind, "model": event.model, "state": event.state, "seconds": seconds}
        EVENTS.log(_LEVELS.get(event.state, logging.INFO), "%s: %s", event.step, event.state, extra={"about": about})
        with self._lock:
            self.steps[event.kind][event.state] += 1
            if event.state == "done":
                self.seconds[event.kind] += seconds or 0.0
                self._add(event.result)

    def _add(self, result: Any) -> None:
        if isinstance(result, Merged):
            self.merged_bytes += sum(file.stat().st_size for file in result.path.glob("*.safetensors"))
        elif isinstance(result, Scores):
            for splits in result.load().values():
                for scored in splits.values():
                    self.tokens += scored.tokens or 0
                    self.evaluated_seconds += scored.seconds

    def past(self, outcome: Outcome | None) -> Past:
        """Return the run as it is remembered; without an outcome it has failed."""
        return Past(
            recipe=self.about["recipe"],
            run=self.about["run"],
            started=self.started,
            seconds=time.time() - self.started,
            steps={kind: dict(counts) for kind, counts in self.steps.items()},
            step_seconds=dict(self.seconds),
            merged_bytes=self.merged_bytes,
            tokens=self.tokens,
            evaluated_seconds=self.evaluated_seconds,
            **(_came_to(outcome) if outcome else {"end": "failed"}),
        )


def watched(carry_out: Callable[[Plan], "State[Outcome]"]) -> Callable[[Plan], "State[Outcome]"]:
    """Watch what carries out a plan. What cannot be told of a run does not undo it."""

    @wraps(carry_out)
    def call(todo: Plan) -> "State[Outcome]":
        recipe, tally = todo.recipe, Tally(todo.recipe.name)
        EVENTS.info("%s: started", recipe.name, extra={"about": tally.about})
        try:
            with listening(tally):
                state = carry_out(todo)
        except Exception as error:
            EVENTS.error("%s: failed: %s", recipe.name, error, extra={"about": tally.about})
            _tell(recipe, tally, None)
            raise
        EVENTS.info("%s: %s", recipe.name, state.message, extra={"about": tally.about})
        _tell(recipe, tally, state.data)
        return state

    return call


def _tell(recipe: Recipe, tally: Tally, outcome: Any) -> None:
    try:
        past = tally.past(outcome).keep()
        if file := os.environ.get(_METRICS):
            write_text(Path(file), metrics.exposition())
        if recipe.evaluates and outcome is not None:
            trend.publish(past)
    except Exception as error:
        get_run_logger().warning("the metrics and the trend of this run were not written: %s", error)


def _came_to(outcome: Outcome) -> dict[str, Any]:
    model, version = outcome.registered
    champion = find_champion(model)
    found: dict[str, Any] = {"model": model, "version": version, "champion_version": champion and champion.version}
    if outcome.leaderboard_file is None:
        return {**found, "end": "not evaluated"}
    rows = {row.name: row for row in outcome.leaderboard.rows}
    served = champion and (CHAMPION if CHAMPION in rows else champion.tags.get(TAG_VARIANT, ""))
    if champion and champion.version == version:
        served = outcome.selected
    scores = {"challenger": outcome.selected, "champion": served or ""}
    for role, name in scores.items():
        if name in rows:
            test = rows[name].average["test"]
            found[role] = Score(value=test.value, low=test.low, high=test.high)
    gates: dict[str, bool] = {}
    for gate in outcome.decision.outcomes:
        gates[gate.rule] = gates.get(gate.rule, True) and gate.passed
    return {**found, "gates": gates, "end": "passed" if outcome.passed else "refused"}
