"""Prune the store and the registry: remove what no run needs, so that a schedule does not fill the disk."""

from collections.abc import Iterator

from prefect import State, flow
from prefect.states import Completed

from flows.run.forgetting import forget_records, give_room_back
from flows.run.outcome import Outcome
from rammerge import store
from rammerge.errors import InputError, RammergeError
from rammerge.store import Pruned, Withdrawn
from rammerge.system.sizes import given_size
from tasks.records.retiring import retire
from tasks.runtime.environment import activate
from tasks.runtime.limits import FLOW_SECONDS


@flow(name="prune", timeout_seconds=FLOW_SECONDS)
def prune(
    unused_days: float = 30,
    size: str | None = None,
    versions: int | None = None,
    records: float | None = None,
    shared: str | None = None,
    dry_run: bool = False,
) -> "Pruned | Withdrawn | State[Pruned | Withdrawn | None]":
    """Remove what was not used for `unused_days`, and then the longest unused until the store fits into `size`.

    What the last run of any recipe leads to stays. It never waits: while a run uses the store of this machine it does
    nothing there and ends in the state Skipped.

    Args:
        unused_days: since the last use.
        size: of the store, such as 50GB.
        versions: also remove registered versions without an alias, but for so many of the newest of each model.
        records: also remove what MLflow and Prefect have of runs that ended so many days ago, unless something refers
            to them.
        shared: a place, which is pruned instead of the store of this machine.
        dry_run: only say what would be removed.
    """
    activate()
    limit = None if size is None else given_size(size, "size")
    would = "dry run: would have " if dry_run else ""
    if shared is not None:
        if versions is not None or records is not None:
            raise InputError("versions, records: they are about this machine; leave them out where `shared` is given")
        withdrawn = store.prune_shared(shared, unused_days=unused_days, size=limit, dry_run=dry_run)
        return Completed(message=f"{would}{withdrawn.sentence}", data=withdrawn)
    said = list(_records(versions, records, dry_run=dry_run))
    try:
        if records is not None:
            said += give_room_back(records, dry_run=dry_run)
        pruned = store.prune(unused_days=unused_days, size=limit, keep=Outcome.referenced(), dry_run=dry_run)
    except RammergeError as error:
        return Completed(name="Skipped", message="; ".join([*said, str(error)]))
    return Completed(message=would + "; ".join([*said, pruned.sentence]), data=pruned)


def _records(versions: int | None, records: float | None, *, dry_run: bool) -> Iterator[str]:
    retired = None if versions is None else retire(versions, dry_run=dry_run)
    if retired is not None:
        yield retired.sentence
    if records is not None:
        yield from forget_records(records, retired=retired.versions if retired else (), dry_run=dry_run)
