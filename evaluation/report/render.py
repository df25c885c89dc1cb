"""The leaderboard for people: Markdown for artifacts, rich tables for a terminal. Numbers are percent."""

from collections.abc import Callable

from rich import box
from rich.table import Table

from evaluation.judging.leaderboard import TIES, Leaderboard, Role, Row
from evaluation.statistics import Difference, Estimate
from evaluation.suites import Split

_ROLES: dict[Role, str] = {"base": "base", "best_agent": "best agent", "reference": "reference"}


def to_markdown(leaderboard: Leaderboard) -> str:
    """Return the leaderboard, the differences of the variants, and how both were made, as GitHub Markdown."""
    columns = _columns(leaderboard)
    lines = [
        _conditions(leaderboard, "test"),
        "",
        _line(["model", "kind", *(title for title, _ in columns)]),
        _line(["---", "---", *("---:" for _ in columns)]),
    ]
    best = _best(leaderboard)
    for row in leaderboard.rows:
        cells = [f"**{cell}**" if (row.name, title) in best else cell for title, cell in _cells(leaderboard, row)]
        name = f"→ **{row.name}** (selected)" if row.name == leaderboard.selected else row.name
        lines.append(_line([name, row.kind, *cells]))
    roles = _roles(leaderboard)
    lines += [
        "",
        _selection(leaderboard),
        "",
        f"Difference of the averages over the suites, test split, {_of_items(leaderboard, 'test')}: variant minus",
        "",
        _line(["variant", *roles.values()]),
        _line(["---", *("---:" for _ in roles)]),
    ]
    for name in leaderboard.names("variant"):
        lines.append(_line([name, *(_shown_difference(leaderboard, name, role) for role in roles)]))
    return "\n".join([*lines, "", _tests(leaderboard), ""])


def to_rich(leaderboard: Leaderboard) -> Table:
    """Return the leaderboard as a table for a terminal: best of each column bold, the selected variant marked."""
    caption = f"{_conditions(leaderboard, 'test')}\n{_selection(leaderboard)}"
    table = Table(title="Leaderboard", caption=caption, caption_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("model", no_wrap=True)
    for title, _ in _columns(leaderboard):
        table.add_column(title, justify="right")
    best = _best(leaderboard)
    for row, following in zip(leaderboard.rows, [*leaderboard.rows[1:], None], strict=True):
        cells = [
            f"[bold]{cell}[/bold]" if (row.name, title) in best else cell for title, cell in _cells(leaderboard, row)
        ]
        ends_kind = following is not None and following.kind != row.kind
        table.add_row(
            _marked(leaderboard, row.name), *cells, style=_style(leaderboard, row.name), end_section=ends_kind
        )
    return table


def differences_to_rich(leaderboard: Leaderboard) -> Table:
    """Return the variants' differences from base, best agent and reference as a table for a terminal."""
    roles = _roles(leaderboard)
    title = "Variant minus … (average over the suites, percentage points)"
    caption = f"Test split, {_of_items(leaderboard, 'test')}, {leaderboard.dtype}. {_tests(leaderboard)}"
    table = Table(title=title, caption=caption, caption_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("variant", no_wrap=True)
    for heading in roles.values():
        table.add_column(heading, justify="right")
    for name in leaderboard.names("variant"):
        cells = [_shown_difference(leaderboard, name, role) for role in roles]
        table.add_row(_marked(leaderboard, name), *cells, style=_style(leaderboard, name))
    return table


def _columns(leaderboard: Leaderboard) -> list[tuple[str, Callable[[Row], Estimate]]]:
    def of_suite(suite: str) -> Callable[[Row], Estimate]:
        return lambda row: row.suites["test"][suite]

    return [
        *((suite, of_suite(suite)) for suite in leaderboard.suites),
        ("average", lambda row: row.average["test"]),
        ("average on validation", lambda row: row.average["validation"]),
    ]


def _cells(leaderboard: Leaderboard, row: Row) -> list[tuple[str, str]]:
    return [(title, _shown(of(row))) for title, of in _columns(leaderboard)]


def _best(leaderboard: Leaderboard) -> set[tuple[str, str]]:
    """The (row, column)s that hold their column's highest value, as it is shown."""
    best = set()
    for title, of in _columns(leaderboard):
        highest = max(_percent(of(row).value) for row in leaderboard.rows)
        best |= {(row.name, title) for row in leaderboard.rows if _percent(of(row).value) == highest}
    return best


def _percent(value: float) -> float:
    return round(100 * value, 1)


def _shown(estimate: Estimate) -> str:
    return f"{100 * estimate.value:.1f} ({100 * estimate.low:.0f}-{100 * estimate.high:.0f})"


def _shown_difference(leaderboard: Leaderboard, name: str, role: Role) -> str:
    for shown in leaderboard.comparisons:
        if shown.comparison.ours == name and shown.role == role:
            average: Difference = shown.comparison.average
            low, high = 100 * average.low, 100 * average.high
            p_value = "p<.001" if shown.holm_p < 0.001 else f"p={shown.holm_p:.3f}".replace("=0.", "=.")
            return f"{100 * average.value:+.1f} ({low:+.1f}, {high:+.1f}) {p_value}"
    return "itself"


def _marked(leaderboard: Leaderboard, name: str) -> str:
    return f"→ {name}" if name == leaderboard.selected else f"  {name}"


def _style(leaderboard: Leaderboard, name: str) -> str | None:
    return "green" if name == leaderboard.selected else "dim" if name == leaderboard.names("base")[0] else None


def _roles(leaderboard: Leaderboard) -> dict[Role, str]:
    roles: dict[Role, str] = {
        "base": leaderboard.names("base")[0],
        "best_agent": f"best agent ({leaderboard.best_agent})",
    }
    if leaderboard.reference is not None:
        roles["reference"] = f"best {leaderboard.reference_method} ({leaderboard.reference})"
    return roles


def _of_items(leaderboard: Leaderboard, split: Split) -> str:
    sizes = {suite: estimate.n for suite, estimate in leaderboard.rows[0].suites[split].items()}
    if len(set(sizes.values())) == 1:
        return f"{len(sizes)} suite{'s' * (len(sizes) > 1)} of {next(iter(sizes.values()))} items"
    return ", ".join(f"{suite} of {n} items" for suite, n in sizes.items())


def _conditions(leaderboard: Leaderboard, split: Split) -> str:
    return (
        f"{split.capitalize()} split, {_of_items(leaderboard, split)}, {leaderboard.dtype}, greedy, "
        f"lm-eval {leaderboard.lm_eval_version}. Percent, with {100 * leaderboard.confidence:g} % intervals; "
        f"the best of a column is bold."
    )


def _selection(leaderboard: Leaderboard) -> str:
    average = leaderboard.row(leaderboard.selected).average["validation"]
    return (
        f"Selected on the validation split ({_of_items(leaderboard, 'validation')}): {leaderboard.selected}, average "
        f"{_shown(average)}; {TIES}."
    )


def _tests(leaderboard: Leaderboard) -> str:
    tests = sorted({shown.comparison.average.test for shown in leaderboard.comparisons})
    return (
        f"Paired by item, with {100 * leaderboard.confidence:g} % intervals; p is two-sided ({', '.join(tests)}), "
        f"Holm-adjusted over these {len(leaderboard.comparisons)} comparisons."
    )


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"
