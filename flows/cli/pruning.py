"""The command `rammerge prune`: remove what nothing needs any more."""

from typing import Annotated

import typer

from flows.cli.preparing import prepare
from rammerge.errors import InputError

UnusedDays = Annotated[
    float, typer.Option(help="Remove what no run has used for this many days.", metavar="DAYS", min=0)
]
Size = Annotated[
    str | None, typer.Option(help="Then remove what was used longest ago, until the store fits.", metavar="SIZE")
]
Versions = Annotated[
    int | None,
    typer.Option(
        help="Also remove registered versions without an alias, but for the N newest of each model.",
        metavar="N",
        min=0,
    ),
]
Records = Annotated[
    float | None,
    typer.Option(
        help="Also remove what MLflow and Prefect have of runs older than this that nothing refers to.",
        metavar="DAYS",
        min=0,
    ),
]
Shared = Annotated[
    str | None,
    typer.Option(help="Prune this shared store instead of the one of this machine.", metavar="DIR|s3://..."),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be removed, and remove nothing.")]


def prune(
    unused_days: UnusedDays = 30,
    size: Size = None,
    versions: Versions = None,
    records: Records = None,
    shared: Shared = None,
    dry_run: DryRun = False,
) -> None:
    """Remove from the store what can be made again. What a run is using stays, and what the last run leads to."""
    from rammerge import store
    from rammerge.system.sizes import given_size

    limit = None if size is None else given_size(size, f"--size {size}")
    would = "dry run: would have " if dry_run else ""
    if shared is not None:
        if versions is not None or records is not None:
            raise InputError("--versions and --records are about this machine's records; leave them out with --shared")
        withdrawn = store.prune_shared(shared, unused_days=unused_days, size=limit, dry_run=dry_run)
        print(f"{would}{withdrawn.sentence}")
        return
    retired: list[tuple[str, int]] = []
    if versions is not None:
        prepare()
        from tasks.records.retiring import retire

        gone = retire(versions, dry_run=dry_run)
        retired = gone.versions
        print(f"{would}{gone.sentence}")
    if records is not None:
        _forget(records, retired, dry_run=dry_run)
    _prune_store(unused_days, limit, dry_run=dry_run)


def _forget(days: float, retired: list[tuple[str, int]], *, dry_run: bool) -> None:
    """Remove records of runs. Prefect is asked over its API, which is started where none is configured."""
    prepare()
    from flows.servers.api import prefect_api

    would = "dry run: would have " if dry_run else ""
    with prefect_api() as answering:
        from flows.run.forgetting import forget_records, give_room_back

        with answering():
            for sentence in forget_records(days, retired=retired, dry_run=dry_run):
                print(f"{would}{sentence}")
    for sentence in give_room_back(days, dry_run=dry_run):
        print(f"{would}{sentence}")


def _prune_store(unused_days: float, size: int | None, *, dry_run: bool) -> None:
    from rich.filesize import decimal

    from flows.run.outcome import Outcome
    from rammerge import store

    pruned = store.prune(unused_days=unused_days, size=size, keep=Outcome.referenced(), dry_run=dry_run)
    for kind, count in sorted(pruned.entries.items()):
        print(f"{kind:<12} {count:>6}  {decimal(pruned.freed[kind])}")
    print(f"{'dry run: would have ' if dry_run else ''}{pruned.sentence}")
