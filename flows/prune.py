"""Prune the store: remove what no run has used for long, so that a schedule does not fill the disk."""

from prefect import State, flow
from prefect.states import Completed

from rammerge import store
from rammerge.errors import InputError, RammergeError
from rammerge.store import Pruned
from rammerge.system.sizes import parse_size
from tasks.runtime.environment import activate
from tasks.runtime.limits import FLOW_SECONDS


@flow(name="prune", timeout_seconds=FLOW_SECONDS)
def prune(unused_days: float = 30, size: str | None = None) -> "Pruned | State[Pruned | None]":
    """Remove what was not used for `unused_days`, and then the longest unused until the store fits into `size`.

    It never waits: while a run uses the store it does nothing and ends in the state Skipped.
    """
    activate()
    try:
        limit = None if size is None else parse_size(size)
    except ValueError as error:
        raise InputError(f"size: {error}") from error
    try:
        pruned = store.prune(unused_days=unused_days, size=limit)
    except RammergeError as error:
        return Completed(name="Skipped", message=str(error))
    return Completed(message=pruned.sentence, data=pruned)
