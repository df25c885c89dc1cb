"""Prune the store and the registry: remove what no run needs, so that a schedule does not fill the disk."""

from prefect import State, flow
from prefect.states import Completed

from flows.run.outcome import Outcome
from rammerge import store
from rammerge.errors import InputError, RammergeError
from rammerge.store import Pruned, Withdrawn
from rammerge.system.sizes import parse_size
from tasks.records.retiring import retire
from tasks.runtime.environment import activate
from tasks.runtime.limits import FLOW_SECONDS


@flow(name="prune", timeout_seconds=FLOW_SECONDS)
def prune(
    unused_days: float = 30,
    size: str | None = None,
    versions: int | None = None,
    shared: str | None = None,
    dry_run: bool = False,
) -> "Pruned | Withdrawn | State[Pruned | Withdrawn | None]":
    """Remove what was not used for `unused_days`, and then the longest unused until the store fits into `size`.

    With `versions`, registered versions without an alias go first, but for as many of the newest of each model. What
    the last run of any recipe leads to stays. With `shared`, a place, that is pruned instead of the store of this
    machine. With `dry_run` nothing is removed.

    It never waits: while a run uses the store of this machine it does nothing there and ends in the state Skipped.
    """
    activate()
    limit, would = _bytes(size), "dry run: would have " if dry_run else ""
    if shared is not None:
        if versions is not None:
            raise InputError("versions: they are records of this machine, and `shared` is a place; give one of them")
        withdrawn = store.prune_shared(shared, unused_days=unused_days, size=limit, dry_run=dry_run)
        return Completed(message=f"{would}{withdrawn.sentence}", data=withdrawn)
    said = [] if versions is None else [retire(versions, dry_run=dry_run).sentence]
    try:
        pruned = store.prune(unused_days=unused_days, size=limit, keep=Outcome.referenced(), dry_run=dry_run)
    except RammergeError as error:
        return Completed(name="Skipped", message="; ".join([*said, str(error)]))
    return Completed(message=would + "; ".join([*said, pruned.sentence]), data=pruned)


def _bytes(size: str | None) -> int | None:
    try:
        return None if size is None else parse_size(size)
    except ValueError as error:
        raise InputError(f"size: {error}") from error
