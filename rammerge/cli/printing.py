"""Printing the results of the library's commands: tables and sentences below them."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape

if TYPE_CHECKING:
    from rammerge.overlap import Overlap
    from rammerge.publishing.report import MergeReport
    from rammerge.rules.listing import MethodListing


def print_merge(report: "MergeReport") -> None:
    """Print how much of each agent's change a merge keeps, and where the model is."""
    console = Console(soft_wrap=True)
    console.print(report.table().to_rich())
    console.print(report.note(), highlight=False)
    _print_warnings(console, report.warnings)
    console.print(escape(report.where()), highlight=False)


def print_overlap(overlap: "Overlap") -> None:
    """Print how densely each agent changed the base, alone and with others, and which method this speaks for."""
    from rammerge.overlap.advisor import advice_for

    console = Console(soft_wrap=True)
    for table in overlap.tables():
        console.print(table.to_rich())
    for sentence in (overlap.note(), *advice_for(overlap.features())):
        console.print(escape(sentence), highlight=False)
    _print_warnings(console, overlap.warnings())


def print_methods(listing: "MethodListing") -> None:
    """Print each method with its parameters, presets and their sources, and then the steps that may follow."""
    from rammerge.rules.listing import details

    console = Console()
    for heading, entries in ("", listing), ("Steps that may follow a method (--then):\n", listing.steps()):
        if heading:
            console.print(heading, highlight=False)
        for name, entry in entries.items():
            console.print(f"[bold]{name}[/]  {escape(entry['summary'])}", highlight=False)
            for line in details(entry):
                console.print(escape(line), highlight=False)
            console.print()


def _print_warnings(console: Console, warnings: Sequence[str]) -> None:
    for warning in warnings:
        console.print(f"[yellow]warning:[/] {escape(warning)}", highlight=False)
