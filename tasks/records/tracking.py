"""Record a pipeline run in MLflow: a parent run, and a child run for each variant."""

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from evaluation.judging.leaderboard import Row
from evaluation.report.searches import NOT_FINAL, standing
from evaluation.search.history import History
from rammerge.store import Entry
from rammerge.system.atomic import write_json
from tasks.records import pages
from tasks.records.connection import client
from tasks.records.listing import every_run
from tasks.records.log import TAG_PIPELINE, TAG_PREFECT_RUN, Log
from tasks.records.record import NOT_EVALUATED, Record
from tasks.records.registry import TAG_DIGEST, TAG_GATES
from tasks.records.reporting import Reported
from tasks.records.shown import dataset_of, evaluation_params, method_params, metrics_of
from tasks.records.trouble import explained
from tasks.runtime.result import Result
from tasks.runtime.retries import TRACKING_RETRIES
from tasks.runtime.step import step


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

        wanted = {self.run_id, *self.children.values()}
        named = ", ".join(f"'{run}'" for run in sorted(wanted))
        finished = f"attributes.run_id IN ({named}) and attributes.status = 'FINISHED'"
        try:
            found = every_run(client(), [self.experiment], finished)
        except MlflowException:
            return False
        return {run.info.run_id for run in found} == wanted


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
    log = Log(
        client(),
        tags={
            **record.tags,
            TAG_PREFECT_RUN: pages.flow_run_page(flow_run),
            TAG_GATES: record.verdict,
            MLFLOW_RUN_NOTE: _prefect_link(flow_run),
            MLFLOW_SOURCE_NAME: str(recipe.path),
            MLFLOW_SOURCE_TYPE: SourceType.to_string(SourceType.LOCAL),
        },
        params={f"output.{name}": value for name, value in recipe.output.model_dump().items()},
        inputs=[dataset_of(suite) for suite in record.suites],
        started=record.started,
    )
    # The directory is named after everything that is recorded.
    log.open(recipe.name, key=out.name)
    runs = log.finished(record.variants) or _write(log, record, reported)
    write_json(out / "runs.json", {"experiment": log.experiment, **runs})


def _write(log: "Log", record: Record, reported: Reported | None) -> dict[str, Any]:
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


def _write_parent(log: "Log", record: Record, rows: Mapping[str, Row], made: Sequence[Result]) -> str:
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
        | evaluation_params(recipe),
        metrics=metrics_of(rows.get(selected), record.seconds())
        | {
            f"{name}/{metric}": value
            for name in references
            for metric, value in metrics_of(rows[name], record.seconds(name)).items()
        },
        files=[file for result in made for file in sorted(result.path.glob("[!.]*"))],
    )
    log.mlflow.log_text(run, record.recipe_text, "recipe.yaml")
    return run


def _write_child(log: "Log", record: Record, name: str, *, row: Row | None, parent: str) -> str:
    from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

    model = record.variants[name]
    return log.run(
        name,
        tags={
            MLFLOW_PARENT_RUN_ID: parent,
            TAG_DIGEST: model.content,
            "rammerge.selected": str(name == record.variant).lower(),
        },
        params=method_params(record.methods[name]),
        metrics=metrics_of(row, record.seconds(name)) | {f"lambda/{agent}": v for agent, v in model.factors.items()},
        files=[model.path / "rammerge.json", model.path / "README.md"],
    )


def _write_trials(log: "Log", history: History, parent: str) -> None:
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
