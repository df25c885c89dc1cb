"""Run a recipe from the command line: its steps on display, and a report at the end."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich.markup import escape

from flows.cli.display import Steps, console, steps_display
from flows.running import run as run_recipe
from rammerge.errors import RammergeError
from rammerge.system.redaction import redact
from tasks.records.importing import spare_tables

if TYPE_CHECKING:
    from flows.run.outcome import Outcome


def run(recipe: Path, runner: str | None = None) -> None:
    """Run `recipe` and print its outcome; for `runner` see `flows.running.run`.

    Raises:
        RammergeError: a step failed, or a gate refused the selected variant.
    """
    started = time.monotonic()
    shown: list[Steps] = []

    @contextmanager
    def display(expected: int) -> Iterator[Steps]:
        with steps_display(expected) as steps:
            shown.append(steps)
            yield steps

    spare_tables()
    outcome = run_recipe(recipe, display, runner)
    _report(outcome, f"{shown[0].summary()}, {time.monotonic() - started:.0f} s")
    if outcome.approval == "refused":
        raise RammergeError(outcome.champion)
    if not outcome.passed:
        raise RammergeError(f"'{outcome.selected}' was refused by a gate: {' '.join(outcome.refusals)}")


def _report(outcome: "Outcome", summary: str) -> None:
    name, version = outcome.registered
    lines = [
        "",
        summary,
        "",
        "look further:",
        "  rammerge ui                        the run in Prefect, the scores and releases in MLflow",
        f"  rammerge releases {name:<16} the registered versions and the champion",
        f"  export MLFLOW_TRACKING_URI={escape(redact(os.environ['MLFLOW_TRACKING_URI']))}",
        f"  python -c 'import mlflow; mlflow.transformers.load_model(\"models:/{name}/{version}\")'",
    ]
    out = console()
    out.print()
    out.print(outcome, highlight=False)
    out.print("\n".join(lines), highlight=False, soft_wrap=True)
