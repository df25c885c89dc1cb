"""One trial of a search: merge a candidate, and ask it the validation items of a look.

The weights of a candidate are in the store for as long as the search wants them (`tasks.steps.candidates`). What it is
and what it answered stay (kinds `candidate` and `look`), so a search that is run again needs no weights for what it
knows.
"""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from evaluation.runners.pool import Worker
from rammerge import store
from rammerge.publishing.identity import MERGE_VERSION
from rammerge.recipe import Compute, Output
from rammerge.store import Entry
from rammerge.system.atomic import write_json
from tasks.runtime.models import model_process
from tasks.runtime.progress import progress
from tasks.runtime.result import Result
from tasks.runtime.step import step
from tasks.runtime.turns import Claim
from tasks.steps.activations import Recorded
from tasks.steps.candidates import Candidates
from tasks.steps.conditions import Conditions, SuiteRef
from tasks.steps.evaluating import harness_arguments, model_claim
from tasks.steps.merging import Merged
from tasks.steps.methods import MethodRef
from tasks.steps.overlap import OverlapResult
from tasks.steps.packing import in_files
from tasks.steps.sources import Groups, Model, refuse_changed

_CANDIDATE, _LOOK = "candidate", "look"
_VERSION = 1


class Looked(Result):
    """What a model scored on the validation items of the looks up to one, by suite: `scores.json` in `path`."""

    scores: dict[str, list[float]]

    @property
    def means(self) -> dict[str, float]:
        """The mean of each suite, float64."""
        return {suite: math.fsum(scores) / len(scores) for suite, scores in self.scores.items()}

    @property
    def items(self) -> int:
        """The number of items."""
        return sum(map(len, self.scores.values()))

    @classmethod
    def read(cls, entry: Entry) -> Self:
        """Return the result that the step wrote."""
        scores = json.loads((entry.path / "scores.json").read_text("utf-8"))
        return cls(path=entry.path, digest=entry.digest, scores=scores)


def _base_claim(*, base: Model, conditions: Conditions, **_: Any) -> Claim:
    return model_claim(model=base, conditions=conditions)


@step(
    "trial",
    version=(_VERSION, MERGE_VERSION),
    run_name="{name}",
    result=Looked,
    ignore=["name", "overlap", "compute", "owner", "beside", "activations"],
    runs_a_model=_base_claim,
    work="evaluate",
)
def trial(
    out: Path,
    name: str,
    base: Model,
    agents: Mapping[str, Model],
    groups: Groups,
    method: MethodRef,
    output: Output,
    compute: Compute,
    overlap: OverlapResult,
    suites: Sequence[SuiteRef],
    conditions: Conditions,
    look: int,
    owner: str,
    beside: Sequence[MethodRef] = (),
    activations: Recorded | None = None,
) -> None:
    """Ask the merge by `method` the validation items of the looks up to `look`; write `scores.json`.

    Nothing is merged if these answers are known. Else the merged weights stay the `owner`'s, until `forget` removes
    them. Those of the candidates `beside` this one, which are asked the same at the same time, are made with them.
    """
    candidates = Candidates(base, agents, groups, output, owner)

    def weights() -> Merged:
        others = [other for other in beside if _answered(candidates.key(other), suites, conditions, look) is None]
        return candidates.weights(method, others, (compute, overlap, activations))

    def describe(directory: Path) -> None:
        write_json(directory / "content.json", weights().content)

    key = candidates.key(method)
    store.materialise(_CANDIDATE, _candidate_key(key), describe)
    if (scores := _answered(key, suites, conditions, look)) is None:
        scores = _ask(weights(), suites, conditions, look)
    write_json(out / "scores.json", scores)


@step(
    "reference",
    version=_VERSION,
    run_name="{name} on the first items",
    result=Looked,
    ignore=["name"],
    runs_a_model=model_claim,
    work="evaluate",
)
def reference(
    out: Path, name: str, model: Model, suites: Sequence[SuiteRef], conditions: Conditions, look: int
) -> None:
    """Ask a model that exists the validation items of the looks up to `look`; write `scores.json`."""
    write_json(out / "scores.json", _ask(model, suites, conditions, look))


def _candidate_key(merge_key: str) -> str:
    return store.key_of(_CANDIDATE, _VERSION, {"merge": merge_key})


def _answered(
    merge_key: str, suites: Sequence[SuiteRef], conditions: Conditions, look: int
) -> dict[str, list[float]] | None:
    """Return the scores of a candidate, if all are in the store."""
    entry = store.bring(_CANDIDATE, _candidate_key(merge_key))
    if entry is None:
        return None
    content = json.loads((entry.path / "content.json").read_text("utf-8"))
    found = {
        suite.name: [store.bring(_LOOK, _key(content, suite, conditions, each)) for each in range(look + 1)]
        for suite in suites
    }
    if any(entry is None for entries in found.values() for entry in entries):
        return None
    return {suite: _joined([entry for entry in entries if entry]) for suite, entries in found.items()}


def _ask(model: Model, suites: Sequence[SuiteRef], conditions: Conditions, look: int) -> dict[str, list[float]]:
    scores = {}
    # The process is taken before any of the store's locks: another step might wait for room while it holds one.
    with model_process(model_claim(model=model, conditions=conditions)) as process:
        for number, suite in enumerate(suites):
            progress()(number / len(suites), suite.name)
            scores[suite.name] = _joined([_asked(process, model, suite, conditions, each) for each in range(look + 1)])
    return scores


def _asked(process: Worker, model: Model, suite: SuiteRef, conditions: Conditions, look: int) -> Entry:
    def ask(out: Path) -> None:
        with in_files(model) as whole:
            arguments = harness_arguments(whole, suite, conditions)
            write_json(out / "scores.json", process.ask("look", **arguments, look=look))
            refuse_changed(whole)

    return store.materialise(_LOOK, _key(model.content, suite, conditions, look), ask)


def _key(content: str, suite: SuiteRef, conditions: Conditions, look: int) -> str:
    asked = conditions.of_suite(suite).identity
    inputs = {"model": content, "suite": suite.identity, "conditions": asked, "look": look}
    return store.key_of(_LOOK, _VERSION, inputs)


def _joined(entries: Sequence[Entry]) -> list[float]:
    return [score for entry in entries for score in json.loads((entry.path / "scores.json").read_text("utf-8"))]
