"""Pruning, for the command and for the flow: registered versions, records of runs, and the store, here or shared."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from flows.run.outcome import Outcome
from rammerge import store
from rammerge.errors import InputError
from rammerge.store import Pruned, Withdrawn

Say = Callable[[str], None]


def prune(
    *,
    unused_days: float,
    size: int | None,
    versions: int | None,
    records: float | None,
    shared: str | None,
    dry_run: bool,
    say: Say,
    api: AbstractContextManager[object] | None = None,
) -> Pruned | Withdrawn:
    """Remove what no run needs, and return what went from the store.

    Args:
        unused_days: since the last use of what goes from the store.
        size: bytes that the store may have: what was used longest ago goes until the rest fits.
        versions: also remove registered versions without an alias, except for this many of the newest of each model.
        records: also remove what MLflow and Prefect have of runs that ended more than this many days ago, unless
            something refers to them.
        shared: a place, which is pruned instead of the store of this machine.
        dry_run: only say what would be removed.
        say: is told each sentence on what went besides.
        api: the context in which Prefect answers, if that is not so already; it is entered when records go.

    Raises:
        InUseError: a process uses the store, which is left alone.
        InputError: what is of this machine is to go from a shared store, or there is no such store.
        RammergeError: something failed meanwhile.
    """
    if shared is not None:
        if versions is not None or records is not None:
            raise InputError("versions and records are of this machine; leave them out with a shared store")
        return store.prune_shared(shared, unused_days=unused_days, size=size, dry_run=dry_run)
    _prune_records(versions, records, say, api or nullcontext(), dry_run=dry_run)
    return store.prune(unused_days=unused_days, size=size, keep=Outcome.referenced(), dry_run=dry_run)


def _prune_records(
    versions: int | None, records: float | None, say: Say, api: AbstractContextManager[object], *, dry_run: bool
) -> None:
    # MLflow and Prefect are imported only by what needs them.
    retired: list[tuple[str, int]] = []
    if versions is not None:
        from tasks.records.retiring import retire

        gone = retire(versions, dry_run=dry_run)
        retired = gone.versions
        say(gone.sentence)
    if records is None:
        return
    with api:
        from flows.run.forgetting import forget_records, give_room_back

        for sentence in forget_records(records, retired=retired, dry_run=dry_run):
            say(sentence)
    for sentence in give_room_back(records, dry_run=dry_run):  # once a server of our own has let go of its database
        say(sentence)
