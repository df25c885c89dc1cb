"""What the library's commands print: tables and the sentences below them."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.filesize import decimal
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from rammerge.api import MergeReport
    from rammerge.overlap import Overlap


def print_merge(report: "MergeReport") -> None:
    """Print what a merge did to each agent's changes, and where the model is."""
    manifest = report.manifest
    table = _table("agent", "changed", "unique", "shared", "lambda", "kept after rounding")
    lambdas = manifest["lambda"] or {}
    for name, row in manifest["rounding_report"]["agents"].items():
        counts = [f"{row[key]:,}" for key in ("active", "unique", "shared")]
        factor = f"{lambdas[name]:.4f}" if name in lambdas else "-"
        table.add_row(name, *counts, factor, _percent(row["survived_share"]))
    console = Console(soft_wrap=True)
    console.print(table)
    kept = manifest["rounding_report"]["kept_share"]
    console.print(f"{_percent(kept)} of the merged change is kept in {manifest['recipe']['dtype']}", highlight=False)
    _print_warnings(console, report.warnings)
    seconds = ", ".join(f"{stage} {value:.1f} s" for stage, value in report.seconds.items())
    console.print(f"{escape(str(report.path))}: {decimal(report.nbytes)} ({seconds})", highlight=False)


def print_overlap(overlap: "Overlap") -> None:
    """Print how densely each agent changed the base, alone and with others."""
    console = Console(soft_wrap=True)
    others = [f"with {k}" for k in range(1, len(overlap.agents))]
    table = _table("agent", "density", "changed", "unique", *others, "rho", title="Overlap")
    for name, row in overlap.summary().items():
        shares = [_percent(count / row["active"] if row["active"] else None) for count in row["co_active"]]
        rho = "inf" if row["rho"] is None else f"{row['rho']:.3f}"
        table.add_row(name, _percent(row["density"]), f"{row['active']:,}", *shares, rho)
    console.print(table)
    epsilons = list(next(iter(overlap.densities.values())).above) if overlap.densities else []
    table = _table("agent", "stored as", *(f"> {e}" for e in epsilons), "> 0.1 %", "bits", title="Density by rule")
    for name, found in overlap.densities.items():
        stored = ", ".join(found.dtypes)
        shares = [_percent(share) for share in (*found.above.values(), found.relative, found.exact)]
        table.add_row(name, stored, *shares)
    console.print(table)
    rule = overlap.mask
    console.print(
        f"{overlap.elements:,} elements; changed means mask {rule.mode}, threshold {rule.threshold:g}", highlight=False
    )
    _print_warnings(console, overlap.warnings())


def print_methods(described: Mapping[str, Any]) -> None:
    """Print each method with its parameters, presets and their sources."""
    console = Console()
    for name, method in described.items():
        console.print(f"[bold]{name}[/]  {method['summary']}", highlight=False)
        console.print(f"  source: {method['source']}", highlight=False)
        for key, schema in method["parameters"].items():
            choices = f" ({', '.join(schema['enum'])})" if "enum" in schema else ""
            console.print(f"  {key} = {schema['default']}: {schema['description']}{choices}", highlight=False)
        for preset, entry in method["presets"].items():
            values = ", ".join(f"{key} = {value}" for key, value in entry["params"].items())
            console.print(f"  preset {preset}: {values} ({entry['source']})", highlight=False)
        console.print()


def _print_warnings(console: Console, warnings: "tuple[str, ...] | list[str]") -> None:
    for warning in warnings:
        console.print(f"[yellow]warning:[/] {escape(warning)}", highlight=False)


def _table(*columns: str, title: str | None = None) -> Table:
    table = Table(title=title, title_justify="left")
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number == 0 else "right")
    return table


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"
