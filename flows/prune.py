"""Prune the store and the registry: remove what no run needs, so that a schedule does not fill the disk."""

from prefect import State, flow
from prefect.states import Completed

from flows.run import pruning
from rammerge.store import InUseError, Pruned, Withdrawn
from rammerge.system.sizes import given_size
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
        versions: also remove registered versions without an alias, except for this many of the newest of each model.
        records: also remove what MLflow and Prefect have of runs that ended more than this many days ago, unless
            something refers to them.
        shared: a place, which is pruned instead of the store of this machine.
        dry_run: only say what would be removed.
    """
    activate()
    limit = None if size is None else given_size(size, "size")
    said: list[str] = []
    would = "dry run: would have " if dry_run else ""
    try:
        removed: Pruned | Withdrawn = pruning.prune(
            unused_days=unused_days,
            size=limit,
            versions=versions,
            records=records,
            shared=shared,
            dry_run=dry_run,
            say=said.append,
        )
    except InUseError as error:
        return Completed(name="Skipped", message=would * bool(said) + "; ".join([*said, str(error)]))
    return Completed(message=would + "; ".join([*said, removed.sentence]), data=removed)
