"""Evaluate models on suites, one entry of the store for each suite."""

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Self

from evaluation.results import SuiteResult
from evaluation.runners.pool import Worker
from evaluation.suites import Split
from rammerge import store
from rammerge.system.atomic import write_json
from tasks.runtime.models import share_out
from tasks.runtime.progress import progress
from tasks.runtime.result import Result
from tasks.runtime.step import step
from tasks.runtime.turns import Claim, claim_of
from tasks.steps.conditions import Conditions, SuiteRef
from tasks.steps.packing import in_files
from tasks.steps.sources import Model, refuse_changed

_SUITE_VERSION = 2


class Scores(Result):
    """One model's results by suite: the directory with `<split>.json` and `<split>.jsonl` (samples), and the means."""

    directories: dict[str, Path]
    digests: dict[str, str]
    means: dict[str, dict[Split, float]]

    @property
    def identity(self) -> dict[str, str]:
        """The content of the results; the paths do not count."""
        return self.digests

    def load(self) -> dict[str, dict[Split, SuiteResult]]:
        """Return the results, item by item, by suite and split."""
        return {
            suite: {
                split: SuiteResult.from_json(json.loads((directory / f"{split}.json").read_text("utf-8")))
                for split in self.means[suite]
            }
            for suite, directory in self.directories.items()
        }

    @classmethod
    def read(cls, entry: store.Entry) -> Self:
        """Return the result that `evaluate` wrote, in a store that may have been elsewhere when it wrote it."""
        written = json.loads((entry.path / "scores.json").read_text("utf-8"))
        kinds = entry.path.parents[1]
        here = {suite: kinds.joinpath(*Path(path).parts[-3:]) for suite, path in written["directories"].items()}
        return cls(path=entry.path, digest=entry.digest, **(written | {"directories": here}))

    def holds(self) -> bool:
        """Return whether every suite's results are still in the store, unharmed; those of other machines come here."""
        return all(store.bring("suite", directory.parent.name) for directory in self.directories.values())


def model_claim(*, model: Model, conditions: Conditions, **_: Any) -> Claim:
    """Return what the model that a step asks needs. A server takes all memory that there is."""
    served = conditions.backend != "transformers" and conditions.device == "cpu"
    return Claim(alone=True) if served else claim_of(model.path, conditions.devices)


@step(
    "evaluate",
    version=2,
    run_name="evaluate {name}",
    result=Scores,
    ignore=["name"],
    runs_a_model=model_claim,
    work="evaluate",
)
def evaluate(out: Path, name: str, model: Model, suites: Sequence[SuiteRef], conditions: Conditions) -> None:
    """Run the model on every suite with lm-eval; a suite that these very weights were run on before is not run again.

    Args:
        out: written: `scores.json`, which names the store's entries, one a suite.
        name: what the model is to the recipe.
        model: the model directory.
        suites: what to ask.
        conditions: how to ask.
    """
    report = progress()

    def ask(number: int, suite: SuiteRef, process: Worker) -> store.Entry:
        report(number / len(suites), suite.name)
        inputs = {"model": model.content, "suite": suite.identity, "conditions": conditions.of_suite(suite).identity}
        run = partial(_run, process=process, model=model, suite=suite, conditions=conditions)
        return store.materialise("suite", store.key_of("suite", _SUITE_VERSION, inputs), run)

    # A process is taken before any of the store's locks: another step might wait for room while it holds one.
    work = [partial(ask, number, suite) for number, suite in enumerate(suites)]
    found = share_out(work, model_claim(model=model, conditions=conditions))
    write_scores(out, {suite.name: entry for suite, entry in zip(suites, found, strict=True)})


def write_scores(out: Path, entries: Mapping[str, store.Entry]) -> None:
    """Write `scores.json`, which `Scores` reads; `entries`, of the kind `suite`, have a model's results by suite."""
    scores = {
        # Below the store, wherever a machine has it.
        "directories": {suite: f"suite/{entry.path.name}/{suite}" for suite, entry in entries.items()},
        "digests": {suite: entry.digest for suite, entry in entries.items()},
        "means": {suite: _means(entry.path / suite) for suite, entry in entries.items()},
    }
    write_json(out / "scores.json", scores)


def _run(out: Path, *, process: Worker, model: Model, suite: SuiteRef, conditions: Conditions) -> None:
    with in_files(model) as whole:
        process.ask("evaluate", **harness_arguments(whole, suite, conditions), out=str(out))
        refuse_changed(whole)


def harness_arguments(model: Model, suite: SuiteRef, conditions: Conditions) -> dict[str, Any]:
    """Return what a process that runs models is told of a model, a suite and how to ask."""
    loaded = {
        "model_dir": str(model.path),
        "dtype": conditions.dtype,
        "batch_size": conditions.of_suite(suite).batch_size,
        "device": conditions.device,
        "backend": conditions.backend,
        "model_digest": model.digest,
    }
    asked = {"suite": str(suite.path), "suite_digest": suite.digest, "limit": conditions.limit}
    return {"model": loaded, **asked, "trust": conditions.trust_remote_code}


def _means(directory: Path) -> dict[str, float]:
    return {file.stem: json.loads(file.read_text("utf-8"))["mean"] for file in sorted(directory.glob("*.json"))}
