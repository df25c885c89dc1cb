"""Record a pipeline run in MLflow: a parent run, and a child run for each variant."""

import json
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from evaluation.judging.leaderboard import Row
from evaluation.report.searches import NOT_FINAL, standing
from evaluation.search.history import History
from rammerge import store
from rammerge.recipe import Recipe
from rammerge.store import Entry
from rammerge.system.atomic import write_json
from rammerge.system.home import home
from tasks.records import pages
from tasks.records.connection import client
from tasks.records.database import sqlite_file
from tasks.records.record import NOT_EVALUATED, Record
from tasks.records.registry import TAG_DIGEST
from tasks.records.reporting import Reported
from tasks.records.trouble import explained
from tasks.runtime.environment import tracking_server
from tasks.runtime.result import Result
from tasks.runtime.retries import TRACKING_RETRIES
from tasks.runtime.step import step
from tasks.steps.conditions import SuiteRef
from tasks.steps.methods import MethodRef

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import DatasetInput, Run

TAG_PIPELINE = "rammerge.pipeline"
# The address of the run's page in Prefect, which ends with its id.
TAG_PREFECT_RUN = "rammerge.prefect_run"
# Without this tag MLflow's dashboard shows an experiment as one of traces and prompts, and there are none.
_SHOWN_AS_RUNS = {"mlflow.experimentKind": "custom_model_development"}


class Tracked(Result):
    """The MLflow runs: their experiment, the parent's id, and each variant's."""

    experiment: str
    run_id: str
    children: dict[str, str]

    @property
    def identity(self) -> str:
        """MLflow identifies runs."""
        return self.run_id

    @classmethod
    def read(cls, entry: Entry) -> Self:
        """Return the result that `track` wrote."""
        return cls(path=entry.path, digest=entry.digest, **json.loads((entry.path / "runs.json").read_text("utf-8")))

    def holds(self) -> bool:
        """Return whether MLflow still has the runs."""
        from mlflow.exceptions import MlflowException

        try:
            found = [client().get_run(run) for run in (self.run_id, *self.children.values())]
        except MlflowException:
            return False
        return all(run.info.lifecycle_stage == "active" and run.info.status == "FINISHED" for run in found)


@step("track", version=2, run_name="record in MLflow", result=Tracked, ignore=["flow_run"], retries=TRACKING_RETRIES)
@explained()
def track(out: Path, record: Record, reported: Reported | None, flow_run: str) -> None:
    """Record parameters, scores, times, recipe, leaderboard, decision, report, figures and what was measured on.

    Runs that an earlier, killed attempt left unfinished are removed first. What one has finished, and could not note
    down in the store, is not recorded a second time. Written: `runs.json`.
    """
    from mlflow.entities import SourceType
    from mlflow.utils.mlflow_tags import MLFLOW_RUN_NOTE, MLFLOW_SOURCE_NAME, MLFLOW_SOURCE_TYPE

    recipe = record.recipe
    log = _Log(
        client(),
        tags={
            **record.tags,
            TAG_PREFECT_RUN: pages.flow_run_page(flow_run),
            "rammerge.gates": record.verdict,
            MLFLOW_RUN_NOTE: _prefect_link(flow_run),
            MLFLOW_SOURCE_NAME: str(recipe.path),
            MLFLOW_SOURCE_TYPE: SourceType.to_string(SourceType.LOCAL),
        },
        params={f"output.{name}": value for name, value in recipe.output.model_dump().items()},
        inputs=[_dataset(suite) for suite in record.suites],
        started=record.started,
    )
    # The directory is named after everything that is recorded.
    log.open(recipe.name, key=out.name)
    runs = log.finished(record.variants) or _write(log, record, reported)
    write_json(out / "runs.json", {"experiment": log.experiment, **runs})


def _write(log: "_Log", record: Record, reported: Reported | None) -> dict[str, Any]:
    """Write all runs, and return their ids. The parent ends last, so it is complete if it has ended."""
    judged = record.judged
    rows = {row.name: row for row in judged.leaderboard.load().rows} if judged else {}
    made = [judged.leaderboard, judged.decision] if judged else []
    made += [each for each in (record.overlap, reported, record.searched) if each]
    parent = _write_parent(log, record, rows, made)
    children = {name: _write_child(log, record, name, row=rows.get(name), parent=parent) for name in record.variants}
    if record.searched:
        _write_trials(log, record.searched.load(), parent)
    for name, run in children.items():
        log.finish(run, record.started + sum(record.seconds(name).values()))
    log.finish(parent, time.time())
    return {"run_id": parent, "children": children}


def _write_parent(log: "_Log", record: Record, rows: Mapping[str, Row], made: Sequence[Result]) -> str:
    from mlflow.utils.mlflow_tags import MLFLOW_RUN_NOTE

    recipe, selected = record.recipe, record.variant
    words = record.judged.leaderboard.markdown if record.judged else NOT_EVALUATED
    references = [name for name, row in rows.items() if row.kind != "variant"]
    run = log.run(
        recipe.name,
        tags={
            TAG_PIPELINE: log.key,
            "rammerge.selected": selected,
            MLFLOW_RUN_NOTE: f"{log.tags[MLFLOW_RUN_NOTE]}\n\n{words}",
        },
        params={f"source.{name}": model.provenance for name, model in {**record.sources, **record.yardsticks}.items()}
        | _evaluation_params(recipe),
        metrics=_metrics(rows.get(selected), record.seconds())
        | {
            f"{name}/{metric}": value
            for name in references
            for metric, value in _metrics(rows[name], record.seconds(name)).items()
        },
        files=[file for result in made for file in sorted(result.path.glob("[!.]*"))],
    )
    log.mlflow.log_text(run, record.recipe_text, "recipe.yaml")
    return run


def _write_child(log: "_Log", record: Record, name: str, *, row: Row | None, parent: str) -> str:
    from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

    model = record.variants[name]
    return log.run(
        name,
        tags={
            MLFLOW_PARENT_RUN_ID: parent,
            TAG_DIGEST: model.content,
            "rammerge.selected": str(name == record.variant).lower(),
        },
        params=_method_params(record.methods[name]),
        metrics=_metrics(row, record.seconds(name)) | {f"lambda/{agent}": v for agent, v in model.factors.items()},
        files=[model.path / "rammerge.json", model.path / "README.md"],
    )


def _write_trials(log: "_Log", history: History, parent: str) -> None:
    """Write a run for each candidate of a search: what it was, and what it scored on the items that it saw."""
    from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID, MLFLOW_RUN_NOTE

    for trial in history.trials:
        became = standing(history, trial)
        seen = {f"validation/{suite}": score for suite, score in trial.suites.items()}
        first = {f"first look/{name}": score for name, score in trial.first.items()}
        run = log.run(
            f"trial {trial.number}",
            tags={
                MLFLOW_PARENT_RUN_ID: parent,
                "rammerge.trial": became,
                MLFLOW_RUN_NOTE: f"A candidate of the search: {became}. {NOT_FINAL}",
            },
            params={"method": trial.method} | {f"method.{name}": value for name, value in trial.params.items()},
            metrics={**first, **seen, "validation/average": trial.average, "items": trial.items},
            files=[],
        )
        log.finish(run, time.time())


@dataclass
class _Log:
    """Writes the MLflow runs of one pipeline run. Values that they share are given once."""

    mlflow: "MlflowClient"
    tags: Mapping[str, str]
    params: Mapping[str, Any]
    inputs: "Sequence[DatasetInput]"
    started: float
    experiment: str = ""
    key: str = ""

    def open(self, name: str, *, key: str) -> None:
        """Choose the experiment, making it if missing, and remove what a killed attempt at `key` left in it."""
        self.experiment, self.key = experiment_of(self.mlflow, name), key
        for parent in self._parents("!="):
            for run in (*self._children(parent), parent):
                self.mlflow.delete_run(run.info.run_id)

    def finished(self, variants: Iterable[str]) -> dict[str, Any] | None:
        """Return the ids of the runs that an earlier attempt has finished, if it finished those of all variants."""
        for parent in self._parents("="):
            children = {run.info.run_name: run.info.run_id for run in self._children(parent)}
            if children.keys() >= (wanted := set(variants)):
                return {"run_id": parent.info.run_id, "children": {name: children[name] for name in sorted(wanted)}}
        return None

    def _parents(self, compared: str) -> "list[Run]":
        """Return the parents of attempts at the key whose status is (`=`), or is not (`!=`), FINISHED."""
        which = f"tags.`{TAG_PIPELINE}` = '{self.key}' and attributes.status {compared} 'FINISHED'"
        return list(self.mlflow.search_runs([self.experiment], which))

    def _children(self, parent: "Run") -> "list[Run]":
        return list(self.mlflow.search_runs([self.experiment], f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'"))

    def run(
        self,
        name: str,
        *,
        tags: Mapping[str, str],
        params: Mapping[str, Any],
        metrics: Mapping[str, float],
        files: Iterable[Path],
    ) -> str:
        """Write a run, leave it open, and return its id."""
        from mlflow.entities import Metric, Param

        began = round(self.started * 1000)
        run: str = self.mlflow.create_run(self.experiment, began, {**self.tags, **tags}, name).info.run_id
        now = int(time.time() * 1000)
        self.mlflow.log_batch(
            run,
            metrics=[Metric(metric, value, now, 0) for metric, value in metrics.items()],
            params=[Param(param, _shown(value)) for param, value in {**params, **self.params}.items()],
        )
        self.mlflow.log_inputs(run, datasets=self.inputs)
        for file in files:
            self.mlflow.log_artifact(run, str(file))
        return run

    def finish(self, run: str, ended: float) -> None:
        """Close a run that ended at a time, in seconds since 1970, rather than when it was written."""
        ended = max(ended, self.started)  # the clock may have been set back
        self.mlflow.set_terminated(run, end_time=round(ended * 1000))


def experiment_of(mlflow: "MlflowClient", name: str) -> str:
    """Return the id of the experiment of that name, which is made if it is missing, and restored if it was deleted."""
    from mlflow.exceptions import MlflowException

    if found := mlflow.get_experiment_by_name(name):
        if found.lifecycle_stage == "deleted":  # in MLflow's page; nobody else can use its name now
            mlflow.restore_experiment(found.experiment_id)
        return str(found.experiment_id)
    try:
        return str(mlflow.create_experiment(name, artifact_location=_artifacts(name), tags=_SHOWN_AS_RUNS))
    except MlflowException:  # a concurrent run has created it
        found = mlflow.get_experiment_by_name(name)
        if found is None:
            raise
        return str(found.experiment_id)


def _artifacts(name: str) -> str | None:
    """Return where an experiment's files are kept; a server chooses its own place."""
    if tracking_server():
        return None
    shared = store.shared_url()
    if shared is not None and sqlite_file(os.environ.get("MLFLOW_TRACKING_URI", "")) is None:
        place = f"mlflow/artifacts/{name}"  # whoever reads the database elsewhere has no home of this machine's
        return f"{shared}/{place}" if "://" in shared else (Path(shared) / place).as_uri()
    # A local place, so that models are registered by hard links.
    return (home() / "mlflow" / "artifacts" / name).as_uri()


def link_version(runs: Tracked, name: str, version: int) -> None:
    """Let the parent's page lead to the registered version. MLflow shows it on the page of the variant's run only."""
    from mlflow.utils.mlflow_tags import MLFLOW_RUN_NOTE

    link = f"[{name} version {version}]({pages.version_fragment(name, version)})"
    mlflow = client()
    note = mlflow.get_run(runs.run_id).data.tags.get(MLFLOW_RUN_NOTE, "")
    if link not in note:
        mlflow.set_tag(runs.run_id, MLFLOW_RUN_NOTE, f"Registered: {link}\n\n{note}")


def _prefect_link(flow_run: str) -> str:
    return f"[This run in Prefect]({pages.flow_run_page(flow_run)})"


def _metrics(row: Row | None, seconds: Mapping[str, float]) -> dict[str, float]:
    metrics = {f"seconds/{step}": value for step, value in seconds.items()}
    if row is None:
        return metrics
    for split, suites in row.suites.items():
        average = row.average[split]
        metrics |= {f"{split}/{suite}": estimate.value for suite, estimate in suites.items()}
        metrics[f"{split}/average"] = average.value
        metrics |= {f"{split}/average_low": average.low, f"{split}/average_high": average.high}
    return metrics


def _evaluation_params(recipe: Recipe) -> dict[str, Any]:
    if not recipe.evaluates:
        return {"evaluation": "none"}
    return {f"evaluation.{name}": value for name, value in recipe.evaluation.model_dump().items()}


def _method_params(method: MethodRef) -> dict[str, Any]:
    settled = {f"method.{name}": value for name, value in method.params.items()}
    weights = {f"weight.{agent}": weight for agent, weight in method.weights.items()}
    tensors = {"tensors": method.tensors} if method.tensors else {}
    return {"method": method.name, "preset": method.preset, **settled, **weights, **tensors}


def _shown(value: Any) -> str:
    return json.dumps(value) if isinstance(value, list | dict) else str(value)


def _dataset(suite: SuiteRef) -> "DatasetInput":
    from mlflow.entities import Dataset, DatasetInput, InputTag

    source = json.dumps({"suite": suite.name, "digest": suite.digest})
    dataset = Dataset(name=suite.name, digest=suite.digest[:36], source_type="rammerge-suite", source=source)
    return DatasetInput(dataset, [InputTag("mlflow.data.context", "evaluation")])
