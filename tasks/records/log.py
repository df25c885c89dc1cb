"""Writing the runs of MLflow that stand for one run of the pipeline: once, however often it is killed meanwhile."""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.records.experiments import experiment_of
from tasks.records.listing import every_run
from tasks.records.shown import shown

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import DatasetInput, Run

TAG_PIPELINE = "rammerge.pipeline"
# The digest of the recipe. All runs of rammerge's have it.
TAG_RECIPE = "rammerge.recipe"
# The address of the run's page in Prefect, which ends with its id.
TAG_PREFECT_RUN = "rammerge.prefect_run"


@dataclass
class Log:
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
        return every_run(self.mlflow, [self.experiment], which)

    def _children(self, parent: "Run") -> "list[Run]":
        return every_run(self.mlflow, [self.experiment], f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'")

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
            params=[Param(param, shown(value)) for param, value in {**params, **self.params}.items()],
        )
        self.mlflow.log_inputs(run, datasets=self.inputs)
        for file in files:
            self.mlflow.log_artifact(run, str(file))
        return run

    def finish(self, run: str, ended: float) -> None:
        """Close a run that ended at a time, in seconds since 1970, rather than when it was written."""
        ended = max(ended, self.started)  # the clock may have been set back
        self.mlflow.set_terminated(run, end_time=round(ended * 1000))
