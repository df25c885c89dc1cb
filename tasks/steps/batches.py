"""How many prompts are asked at a time, chosen once on the base, so that it is the same for all models compared."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from rammerge.store import Entry
from rammerge.system.atomic import write_json
from tasks.runtime.models import model_process
from tasks.runtime.progress import progress
from tasks.runtime.result import Result
from tasks.runtime.step import step
from tasks.steps.conditions import Conditions, SuiteRef
from tasks.steps.evaluating import harness_arguments, model_claim
from tasks.steps.sources import Model

_FILE = "batches.json"


class Batches(Result):
    """The number of prompts at a time by suite."""

    sizes: dict[str, int]

    @classmethod
    def read(cls, entry: Entry) -> Self:
        """Return the result that `choose_batches` wrote."""
        sizes = json.loads((entry.path / _FILE).read_text("utf-8"))
        return cls(path=entry.path, digest=entry.digest, sizes=sizes)


@step("batches", version=1, run_name="choose batches", result=Batches, runs_a_model=model_claim, work="evaluate")
def choose_batches(out: Path, model: Model, suites: Sequence[SuiteRef], conditions: Conditions) -> None:
    """Choose for each suite the largest batch that fits into memory beside the model; write `batches.json`."""
    report, sizes = progress(), {}
    with model_process(model_claim(model=model, conditions=conditions)) as process:
        for number, suite in enumerate(suites):
            report(number / len(suites), suite.name)
            sizes[suite.name] = process.ask("choose_batch", **harness_arguments(model, suite, conditions))
    write_json(out / _FILE, sizes)
