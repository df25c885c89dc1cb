"""The command `rammerge prune`: remove what nothing needs any more."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.preparing import prepare

if TYPE_CHECKING:
    from rammerge.store import Pruned

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
    from flows.run import pruning
    from rammerge.store import Pruned
    from rammerge.system.sizes import given_size

    would = "dry run: would have " if dry_run else ""
    if versions is not None or records is not None:
        prepare()
    removed = pruning.prune(
        unused_days=unused_days,
        size=None if size is None else given_size(size, f"--size {size}"),
        versions=versions,
        records=records,
        shared=shared,
        dry_run=dry_run,
        say=lambda sentence: print(f"{would}{sentence}"),
        api=_answering(),
    )
    if isinstance(removed, Pruned):
        _print_kinds(removed)
    print(f"{would}{removed.sentence}")


@contextmanager
def _answering() -> Iterator[None]:
    """Have Prefect's API answer, which is started where none is configured."""
    from flows.servers.api import prefect_api

    with prefect_api() as answering, answering():
        yield


def _print_kinds(removed: "Pruned") -> None:
    from rich.filesize import decimal

    for kind, count in sorted(removed.entries.items()):
        print(f"{kind:<12} {count:>6}  {decimal(removed.freed[kind])}")
