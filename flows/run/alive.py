"""Which runs are alive. Each one locks a file, so the next one can close those whose end nobody told Prefect of."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO
from uuid import UUID

from prefect import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.exceptions import ObjectNotFound
from prefect.runtime import flow_run
from prefect.states import Crashed

from rammerge.system.home import home
from rammerge.system.locks import locked
from tasks.records.unfinished import end_unfinished

_MESSAGE = "its process ended without a word, and a later run has closed it; what it had finished is kept"


# Files of this process's runs that have ended. They stay locked, because Prefect learns of a run's end only after the
# context, and perhaps never, if it is down by then.
_ended: list[BinaryIO] = []


@contextmanager
def alive() -> Iterator[None]:
    """While the context lasts, the present flow run is alive. Earlier runs of this home that died are closed first."""
    directory = _directory()
    directory.mkdir(parents=True, exist_ok=True)
    while _ended:
        _ended.pop().close()
    run = str(flow_run.id)
    file = (directory / f".{run}").open("wb")
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
        (directory / f".{run}").rename(directory / run)  # locked before anyone can take it for a dead one's
        close_dead()
        yield
    finally:
        _ended.append(file)


def is_alive(run: UUID) -> bool:
    """Tell whether a run of this home has begun and not ended. One that died counts until `close_dead` is called."""
    return (_directory() / str(run)).exists()


def strike_off(run: UUID) -> None:
    """Take a run off the list that has done its work, and whose end everyone knows: no later run has to close it."""
    (_directory() / str(run)).unlink(missing_ok=True)


def close_dead() -> None:
    """Close the runs of this home whose processes have died, in Prefect and in MLflow."""
    for file in _directory().glob("[!.]*"):
        # Whoever holds the lock is alive, or closes it. What cannot be closed now does not keep this run from its work.
        with suppress(Exception), locked(file, wait=False):
            _close(UUID(file.name))
            file.unlink()


def _directory() -> Path:
    return home() / "runs" / "alive"


def _close(run: UUID) -> None:
    """Say in Prefect and in MLflow that a run has ended, as far as they believe that it has not."""
    with get_client(sync_client=True) as client:
        with suppress(ObjectNotFound):
            state = client.read_flow_run(run).state
            if state is not None and not state.is_final():
                client.set_flow_run_state(run, Crashed(message=_MESSAGE), force=True)
        for task in client.read_task_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[run]))):
            if task.state is not None and not task.state.is_final():
                client.set_task_run_state(task.id, Crashed(message=_MESSAGE), force=True)
    end_unfinished(run)
