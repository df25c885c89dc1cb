"""One trial of a search: merge a candidate, and ask it the validation items of a look.

The weights of a candidate are in the store for as long as the search wants them (kind `trial-model`). What it is and
what it answered stay (kinds `candidate` and `look`), so a search that is run again needs no weights for what it knows.
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
from tasks.runtime.progress import progress
from tasks.runtime.slots import fills_the_machine, model_process
from tasks.runtime.step import Result, step
from tasks.steps.evaluating import Conditions, SuiteRef, harness_arguments, model_fills
from tasks.steps.merging import Merged, MethodRef, OverlapResult, merge, write_merges
from tasks.steps.sources import Groups, Model, open_family, refuse_changed

_MODEL, _CANDIDATE, _LOOK = "trial-model", "candidate", "look"
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


def _base_fills(*, base: Model, conditions: Conditions, **_: Any) -> bool:
    return fills_the_machine(base.path, conditions.device)


@step(
    "trial",
    version=(_VERSION, MERGE_VERSION),
    run_name="{name}",
    result=Looked,
    ignore=["name", "overlap", "compute", "owner"],
    runs_a_model=_base_fills,
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
) -> None:
    """Ask the merge by `method` the validation items of the looks up to `look`; write `scores.json`.

    Nothing is merged if these answers are known. Else the merged weights stay the `owner`'s, until `forget` removes
    them.
    """
    given = {"base": base, "agents": agents, "groups": groups, "method": method, "output": output}
    key = merge.key(**given)

    def make(directory: Path) -> None:
        family = open_family(base, agents, groups, output.resize)
        list(write_merges(family, {directory: method}, output, compute, overlap))

    def weights() -> Merged:
        return merge.find(**given) or Merged.read(store.materialise(_MODEL, _weights_key(key, owner), make))

    def describe(directory: Path) -> None:
        write_json(directory / "content.json", weights().content)

    entry = store.materialise(_CANDIDATE, store.key_of(_CANDIDATE, _VERSION, {"merge": key}), describe)
    content = json.loads((entry.path / "content.json").read_text("utf-8"))
    if (scores := _known(content, suites, conditions, look)) is None:
        scores = _ask(weights(), suites, conditions, look)
    write_json(out / "scores.json", scores)


@step(
    "reference",
    version=_VERSION,
    run_name="{name} on the first items",
    result=Looked,
    ignore=["name"],
    runs_a_model=model_fills,
)
def reference(
    out: Path, name: str, model: Model, suites: Sequence[SuiteRef], conditions: Conditions, look: int
) -> None:
    """Ask a model that exists the validation items of the looks up to `look`; write `scores.json`."""
    write_json(out / "scores.json", _ask(model, suites, conditions, look))


def forget(
    base: Model, agents: Mapping[str, Model], groups: Groups, method: MethodRef, output: Output, owner: str
) -> None:
    """Remove the weights of a candidate, if a trial has left any. Its answers stay."""
    key = merge.key(base=base, agents=agents, groups=groups, method=method, output=output)
    store.drop(_MODEL, _weights_key(key, owner))


def _weights_key(merge_key: str, owner: str) -> str:
    # Of one search, because another one may still ask a model that this one has finished with.
    return store.key_of(_MODEL, _VERSION, {"merge": merge_key, "owner": owner})


def _known(
    content: str, suites: Sequence[SuiteRef], conditions: Conditions, look: int
) -> dict[str, list[float]] | None:
    """Return the scores of a model of this content, if all are in the store."""
    found = {
        suite.name: [store.find(_LOOK, _key(content, suite, conditions, each)) for each in range(look + 1)]
        for suite in suites
    }
    if any(entry is None for entries in found.values() for entry in entries):
        return None
    return {suite: _joined([entry for entry in entries if entry]) for suite, entries in found.items()}


def _ask(model: Model, suites: Sequence[SuiteRef], conditions: Conditions, look: int) -> dict[str, list[float]]:
    scores = {}
    # The process is taken before any of the store's locks: another step might wait for room while it holds one.
    with model_process(alone=model_fills(model=model, conditions=conditions)) as process:
        for number, suite in enumerate(suites):
            progress()(number / len(suites), suite.name)
            scores[suite.name] = _joined([_asked(process, model, suite, conditions, each) for each in range(look + 1)])
    return scores


def _asked(process: Worker, model: Model, suite: SuiteRef, conditions: Conditions, look: int) -> Entry:
    def ask(out: Path) -> None:
        arguments = harness_arguments(model, suite, conditions)
        write_json(out / "scores.json", process.ask("look", **arguments, look=look))
        refuse_changed(model)

    return store.materialise(_LOOK, _key(model.content, suite, conditions, look), ask)


def _key(content: str, suite: SuiteRef, conditions: Conditions, look: int) -> str:
    inputs = {"model": content, "suite": suite.identity, "conditions": conditions.model_dump(), "look": look}
    return store.key_of(_LOOK, _VERSION, inputs)


def _joined(entries: Sequence[Entry]) -> list[float]:
    return [score for entry in entries for score in json.loads((entry.path / "scores.json").read_text("utf-8"))]
