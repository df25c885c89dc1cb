"""Removing MLflow's records of runs that ended long ago, and that nothing refers to."""

import os
import subprocess
import sys
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict
from rich.filesize import decimal

from rammerge.errors import RammergeError
from rammerge.system.locks import locked
from rammerge.system.redaction import redact
from tasks.records.connection import client, lock_file
from tasks.records.database import is_database
from tasks.records.files import local_path, size_of
from tasks.records.history import read_history
from tasks.records.listing import every_experiment, every_run, every_version
from tasks.records.log import TAG_PIPELINE, TAG_PREFECT_RUN, TAG_RECIPE
from tasks.records.registry import TAG_RUN
from tasks.records.trouble import explained

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

_DAY = 24 * 60 * 60
_AT_ONCE = 500


class Forgotten(BaseModel):
    """The records that were removed, or would be.

    Attributes:
        runs: pipeline runs.
        records: MLflow's runs of them: one for each pipeline run, variant and trial.
        freed: bytes of their files on this machine's disk. What the store shares with them is freed with its entry.
        linked: ids of the runs in Prefect to which what is kept leads.
        only_marked: whether MLflow's server keeps what was removed until `mlflow gc` is run there.
    """

    model_config = ConfigDict(frozen=True)

    runs: int
    records: int
    freed: int
    linked: frozenset[str]
    only_marked: bool

    @property
    def sentence(self) -> str:
        """What came of it, in a few words."""
        later = "; run `mlflow gc` where MLflow's server runs to free their room" if self.only_marked else ""
        return (
            f"removed {self.records} records of {self.runs} runs in MLflow, with files of {decimal(self.freed)}{later}"
        )


@explained()
def forget(
    days: float, *, keep: Collection[str] = (), retired: Collection[tuple[str, int]] = (), dry_run: bool = False
) -> Forgotten:
    """Remove what MLflow has of pipeline runs that ended, and began more than some days ago.

    Runs that have not ended stay, and so do the newest of each experiment, and those of a registered version or of its
    history.

    Args:
        days: since a run began.
        keep: ids of runs of MLflow's that stay with all that belongs to them.
        retired: registered versions that keep nothing: in a dry run they are still there.
        dry_run: only say what would be removed.
    """
    mlflow = client(write=not dry_run)
    with locked(lock_file("aliases")):  # nothing is registered meanwhile
        families = _families(_runs(mlflow, time.time() - days * _DAY))
        held = {*keep, *_newest(mlflow), *_referred_to(mlflow, retired)}
        chosen = {parent: runs for parent, runs in families.items() if not _is_held(parent, runs, held)}
        runs = [run for family in chosen.values() for run in family]
        linked = frozenset(_linked(mlflow, held))
        freed = sum(size_of(local_path(run.info.artifact_uri)) for run in runs)
        if not dry_run:
            _remove(mlflow, runs)
    only_marked = bool(runs) and not is_database(os.environ["MLFLOW_TRACKING_URI"])
    return Forgotten(runs=len(chosen), records=len(runs), freed=freed, linked=linked, only_marked=only_marked)


def _runs(mlflow: "MlflowClient", before: float) -> "list[Run]":
    """Return rammerge's runs that began before a time, also those that are only marked as deleted."""
    which = f"tags.`{TAG_RECIPE}` LIKE '%' and attributes.start_time < {round(before * 1000)}"
    return every_run(mlflow, every_experiment(mlflow), which, deleted=True)


def _families(runs: "Iterable[Run]") -> "dict[str, list[Run]]":
    """Return the runs by the id of the one that stands for their pipeline run, children first."""
    from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

    families: dict[str, list[Run]] = {}
    for run in runs:
        parent = run.data.tags.get(MLFLOW_PARENT_RUN_ID, run.info.run_id)
        families.setdefault(parent, []).append(run)
    return {parent: sorted(family, key=lambda run: run.info.run_id == parent) for parent, family in families.items()}


def _newest(mlflow: "MlflowClient") -> Iterator[str]:
    """Yield the last pipeline run of each experiment: the next run of the recipe may find that it is recorded."""
    which, order = f"tags.`{TAG_PIPELINE}` LIKE '%'", ["attributes.start_time DESC"]
    for experiment in every_experiment(mlflow):
        for run in mlflow.search_runs([experiment], which, max_results=1, order_by=order):
            yield run.info.run_id


def _referred_to(mlflow: "MlflowClient", retired: Collection[tuple[str, int]]) -> Iterator[str]:
    """Yield the runs that a registered version came from, or whose scores its history is about."""
    for version in every_version(mlflow):
        if (version.name, int(version.version)) not in retired:
            yield from (str(version.run_id), version.tags.get(TAG_RUN, ""))
            yield from (event.run for event in read_history(version.tags))


def _is_held(parent: str, runs: "Iterable[Run]", held: Collection[str]) -> bool:
    return parent in held or any(run.info.run_id in held or _is_open(run) for run in runs)


def _is_open(run: "Run") -> bool:
    from mlflow.entities import LifecycleStage, RunStatus

    ended = RunStatus.is_terminated(RunStatus.from_string(run.info.status))
    return bool(run.info.lifecycle_stage == LifecycleStage.ACTIVE and not ended)


def _linked(mlflow: "MlflowClient", held: Iterable[str]) -> Iterator[str]:
    """Yield the ids of the runs in Prefect to which runs of MLflow's lead."""
    from mlflow.exceptions import MlflowException

    for run in filter(None, held):
        with suppress(MlflowException):  # it is gone
            yield mlflow.get_run(run).data.tags.get(TAG_PREFECT_RUN, "").rpartition("/")[2]


def _remove(mlflow: "MlflowClient", runs: "list[Run]") -> None:
    """Mark runs as deleted, and have MLflow remove them where it keeps them in a database that is opened here."""
    from mlflow.entities import LifecycleStage

    for run in runs:
        if run.info.lifecycle_stage == LifecycleStage.ACTIVE:
            mlflow.delete_run(run.info.run_id)
    if is_database(uri := os.environ["MLFLOW_TRACKING_URI"]):
        for first in range(0, len(runs), _AT_ONCE):
            _collect(uri, [run.info.run_id for run in runs[first : first + _AT_ONCE]])
        for place in filter(None, (local_path(run.info.artifact_uri) for run in runs)):
            with suppress(OSError):
                place.parent.rmdir()


def _collect(uri: str, runs: Sequence[str]) -> None:
    """Remove runs that are marked as deleted, with their files, by the command of MLflow's that may do that."""
    command = [sys.executable, "-P", "-m", "mlflow", "gc", "--run-ids", ",".join(runs)]
    # By the environment, because every user of the machine may read the arguments of a process.
    done = subprocess.run(
        command, env={**os.environ, "MLFLOW_BACKEND_STORE_URI": uri}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        said = redact((done.stderr.strip() or "no reason given").splitlines()[-1])
        raise RammergeError(f"`mlflow gc` failed ({said}); prune again")
