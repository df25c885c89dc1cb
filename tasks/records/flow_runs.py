"""Removing Prefect's records of flow runs that ended long ago: their steps, logs and artifacts, and kept results."""

import os
import time
from collections.abc import Collection, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

from prefect import get_client
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterEndTime,
    FlowRunFilterState,
    FlowRunFilterStateType,
    LogFilter,
    LogFilterFlowRunId,
)
from prefect.client.schemas.objects import TERMINAL_STATES
from prefect.client.schemas.sorting import FlowRunSort
from pydantic import BaseModel, ConfigDict

from rammerge.system.home import home

# The flows whose runs are rammerge's; a server may have others.
FLOWS = ("check", "merge-and-evaluate", "promote", "prune", "rollback", "step", "sweep")
_PAGE = 200
_LOGS_SECONDS = 30.0


class ForgottenRuns(BaseModel):
    """The runs in Prefect whose records were removed, or would be."""

    model_config = ConfigDict(frozen=True)

    runs: int

    @property
    def sentence(self) -> str:
        """What came of it, in a few words."""
        return f"removed {self.runs} flow runs in Prefect"


def forget_runs(days: float, *, keep: Collection[str] = (), dry_run: bool = False) -> ForgottenRuns:
    """Remove from Prefect what it has of rammerge's flow runs that ended more than some days ago.

    Args:
        days: since a run ended.
        keep: ids of runs that stay.
        dry_run: only say what would be removed.
    """
    with get_client(sync_client=True) as client:
        before = datetime.now(UTC) - timedelta(days=days)
        chosen = [run for run in _ended(client, before) if str(run) not in keep]
        if not dry_run:
            for run in chosen:
                _remove(client, run)
            _wait_for_logs(client, chosen)
    return ForgottenRuns(runs=len(chosen))


def _ended(client: SyncPrefectClient, before: datetime) -> list[UUID]:
    which = FlowRunFilter(
        end_time=FlowRunFilterEndTime.model_validate({"before_": before}),
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=sorted(TERMINAL_STATES))),
    )
    flows = FlowFilter(name=FlowFilterName(any_=list(FLOWS)))
    found: list[UUID] = []
    while page := client.read_flow_runs(
        flow_filter=flows, flow_run_filter=which, sort=FlowRunSort.END_TIME_DESC, limit=_PAGE, offset=len(found)
    ):
        found += [run.id for run in page]
    return found


def _remove(client: SyncPrefectClient, run: UUID) -> None:
    """Remove a run with its artifacts, which Prefect would keep, and its steps and logs, which go with it."""
    of_run = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run]))
    while artifacts := client.read_artifacts(artifact_filter=of_run, limit=_PAGE):
        for artifact in artifacts:
            client.delete_artifact(artifact.id)
    client.delete_flow_run(run)


def _wait_for_logs(client: SyncPrefectClient, runs: list[UUID]) -> None:
    """Wait until Prefect has removed the logs, which it does a moment after the runs: its server may end then."""
    deadline = time.monotonic() + _LOGS_SECONDS
    for first in range(0, len(runs), _PAGE):
        left = LogFilter(flow_run_id=LogFilterFlowRunId(any_=runs[first : first + _PAGE]))
        while client.read_logs(log_filter=left, limit=1) and time.monotonic() < deadline:
            time.sleep(0.1)


def old_results(days: float) -> Iterator[Path]:
    """Yield the files below the home in which Prefect kept what steps returned more than some days ago.

    A step whose result is gone looks into the store, so nothing is done again. They may go while nobody uses the store.
    """
    place = Path(os.environ["PREFECT_LOCAL_STORAGE_PATH"])
    if place.is_relative_to(home()):
        for file in sorted(place.rglob("*")):
            if file.is_file() and file.stat().st_mtime < time.time() - days * 24 * 60 * 60:
                yield file
