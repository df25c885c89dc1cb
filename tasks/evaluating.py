"""Evaluate models, compare them, choose a variant and put it to the gates."""

import json
from collections.abc import Sequence
from functools import partial
from importlib.metadata import version as installed
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from rammerge import store
from rammerge.atomic import write_json
from rammerge.recipe import Evaluation
from tasks.progress import advance
from tasks.slots import MODEL_SLOT
from tasks.sources import Model
from tasks.step import Result, step

if TYPE_CHECKING:
    from evaluation.results import SuiteResult
    from evaluation.suites import Suite

_SUITE_VERSION = 1


class SuiteRef(BaseModel):
    """A suite that has been opened and checked.

    Attributes:
        name: as results and reports call it.
        path: its directory.
        digest: of all that is asked and how it is scored.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    path: Path
    digest: str

    @property
    def identity(self) -> list[str]:
        """Where the suite lies does not count."""
        return [self.name, self.digest]

    @classmethod
    def of(cls, suite: "Suite") -> "SuiteRef":
        """Return what the steps need to know of an opened suite."""
        return cls(name=suite.name, path=suite.path, digest=suite.digest)


class Scores(Result):
    """One model's results: directories with `<suite>/<split>.json` and `.jsonl` (samples), and the means by split."""

    directories: dict[str, Path]
    means: dict[str, dict[str, float]]

    def load(self) -> "dict[str, dict[str, SuiteResult]]":
        """Return the results, item by item, by suite and split."""
        from evaluation.results import SuiteResult

        return {
            suite: {
                split: SuiteResult.from_json(json.loads((directory / suite / f"{split}.json").read_text("utf-8")))
                for split in self.means[suite]
            }
            for suite, directory in self.directories.items()
        }


def scored(entry: store.Entry) -> Scores:
    """Read what `evaluate` wrote."""
    return Scores(path=entry.path, digest=entry.digest, **json.loads((entry.path / "scores.json").read_text("utf-8")))


def complete(entry: store.Entry) -> bool:
    """Say whether every suite's results are still in the store, unharmed."""
    return all(store.find("suite", Path(d).name) is not None for d in scored(entry).directories.values())


@step("evaluate", version=1, run_name="evaluate {name}", result=scored, ignore=["name"], valid=complete)
def evaluate(
    out: Path, name: str, model: Model, suites: Sequence[SuiteRef], settings: Evaluation, device: str, lm_eval: str
) -> None:
    """Run the model on every suite with lm-eval; a suite that these very weights were run on before is not run again.

    Args:
        out: written: `scores.json`, which names the store's entries, one a suite.
        name: what the model is to the recipe.
        model: the model directory.
        suites: what to ask.
        settings: dtype, batch size and limit.
        device: where the model runs.
        lm_eval: version of lm-eval, on which scores may depend.
    """
    asked = [settings.dtype, settings.batch_size, settings.limit, device.partition(":")[0], lm_eval]
    directories: dict[str, str] = {}
    means: dict[str, dict[str, float]] = {}
    for number, suite in enumerate(suites):
        advance(number / len(suites), suite.name)
        inputs = {"model": model.content, "suite": suite.identity, "asked": asked}
        run = partial(_run, model=model, suite=suite, settings=settings, device=device)
        entry = store.materialise("suite", store.key_of("suite", _SUITE_VERSION, inputs), run)
        directories[suite.name] = str(entry.path)
        means[suite.name] = {
            file.stem: json.loads(file.read_text("utf-8"))["mean"] for file in sorted((entry.path / suite.name).glob("*.json"))
        }
    write_json(out / "scores.json", {"directories": directories, "means": means})


def _run(out: Path, *, model: Model, suite: SuiteRef, settings: Evaluation, device: str) -> None:
    from evaluation.runner import evaluate_model
    from evaluation.suites import load_suite

    with MODEL_SLOT:
        evaluate_model(
            model.path,
            [load_suite(suite.path)],
            dtype=settings.dtype,
            batch_size=settings.batch_size,
            device=device,
            limit=settings.limit,
            out=out,
            model_digest=model.digest,
        )


def lm_eval_version() -> str:
    """Return the installed lm-eval's version without importing it."""
    return installed("lm_eval")
