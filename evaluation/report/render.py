"""The leaderboard for people: Markdown for artifacts, rich tables for a terminal.

Numbers are percent.
"""

from collections.abc import Callable, Iterator, Sequence

from rich import box
from rich.table import Table

from evaluation.judging.comparing import Role
from evaluation.judging.leaderboard import TIES, Leaderboard, Row
from evaluation.power import POWER, detected
from evaluation.statistics import Difference, Estimate
from evaluation.suites import Split

Columns = Sequence[tuple[str, Callable[[Row], Estimate]]]

# This many columns of scores fit beside a model's name on a page of Prefect's dashboard at desktop width.
_COLUMNS_A_TABLE = 5
_ROLES: dict[Role, str] = {
    "base": "base",
    "best_agent": "best agent",
    "champion": "champion",
    "reference": "reference",
}


def to_markdown(leaderboard: Leaderboard) -> str:
    """Return the leaderboard, the differences of the variants, and how both were made, as GitHub Markdown."""
    columns = _columns(leaderboard)
    tables = [columns[start : start + _COLUMNS_A_TABLE] for start in range(0, len(columns), _COLUMNS_A_TABLE)]
    return "\n".join(
        [
            _conditions(leaderboard, "test"),
            "",
            *(line for table in tables for line in (*_scores(leaderboard, table), "")),
            _selection(leaderboard),
            "",
            f"Difference of the averages over the suites, test split, {_of_items(leaderboard, 'test')}: variant minus "
            f"{_named_roles(leaderboard)}",
            "",
            *_differences(leaderboard),
            "",
            _tests(leaderboard),
            "",
        ]
    )


def percent(value: float) -> float:
    """Return a share in percent, with the digits that scores are shown with."""
    return round(100 * value, 1)


def _scores(leaderboard: Leaderboard, columns: Columns) -> Iterator[str]:
    yield _line(["model", "kind", *(title for title, _ in columns)])
    yield _line(["---", "---", *("---:" for _ in columns)])
    best = best_cells(leaderboard)
    for row in leaderboard.rows:
        cells = [f"**{cell}**" if (row.name, title) in best else cell for title, cell in _cells(row, columns)]
        name = f"→ **{row.name}**" if row.name == leaderboard.selected else row.name
        yield _line([name, row.kind, *cells])


def _differences(leaderboard: Leaderboard) -> Iterator[str]:
    roles = _roles(leaderboard)
    yield _line(["variant", *(_ROLES[role] for role in roles)])
    yield _line(["---", *("---:" for _ in roles)])
    for name in leaderboard.names("variant"):
        yield _line([name, *(_shown_difference(leaderboard, name, role) for role in roles)])


def _named_roles(leaderboard: Leaderboard) -> str:
    named = ["the base", f"the best agent, {leaderboard.best_agent}"]
    if leaderboard.champion is not None and leaderboard.champion.row is not None:
        named.append(f"the champion, {leaderboard.champion.name}")
    if leaderboard.reference is not None:
        named.append(f"the reference, which is the best {leaderboard.reference_method}, {leaderboard.reference}")
    return "; ".join(named)


def to_rich(leaderboard: Leaderboard) -> Table:
    """Return the leaderboard as a table for a terminal: best of each column bold, the selected variant marked."""
    caption = f"{_conditions(leaderboard, 'test')}\n{_selection(leaderboard)}"
    table = Table(title="Leaderboard", caption=caption, caption_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("model", no_wrap=True)
    columns = _columns(leaderboard)
    for title, _ in columns:
        table.add_column(title, justify="right")
    best = best_cells(leaderboard)
    for row, following in zip(leaderboard.rows, [*leaderboard.rows[1:], None], strict=True):
        cells = [f"[bold]{cell}[/bold]" if (row.name, title) in best else cell for title, cell in _cells(row, columns)]
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


def suites_to_rich(leaderboard: Leaderboard) -> Table:
    """Return the selected variant against the champion, suite by suite, as a table for a terminal."""
    shown = next(shown for shown in leaderboard.comparisons if shown.role == "champion")
    ours, theirs = (leaderboard.row(name) for name in (shown.comparison.ours, shown.comparison.theirs))
    caption = (
        f"Test split, {leaderboard.dtype}, {decoding(leaderboard)}, lm-eval {leaderboard.lm_eval_version}; percent, "
        f"paired by item, with {100 * leaderboard.confidence:g} % intervals. A true difference of the detectable size "
        f"is shown with {POWER:.0%} power."
    )
    table = Table(
        title=f"{ours.name} minus {theirs.name}", caption=caption, caption_justify="left", box=box.SIMPLE_HEAD
    )
    table.add_column("suite", no_wrap=True)
    for title in (ours.name, theirs.name, "difference", "detectable", "won, lost", "p"):
        table.add_column(title, justify="right")
    parts = {**shown.comparison.suites, "average": shown.comparison.average}
    for suite, difference in parts.items():
        both = (row.average["test"] if suite == "average" else row.suites["test"][suite] for row in (ours, theirs))
        table.add_row(
            suite,
            *(f"{100 * estimate.value:.1f}" for estimate in both),
            _in_points(difference),
            f"±{100 * detected(difference, confidence=leaderboard.confidence):.1f}",
            f"{difference.wins}, {difference.losses} of {difference.n}",
            p_value(difference.p_value),
            style="bold" if suite == "average" else None,
        )
    return table


def p_value(value: float) -> str:
    """Return a p-value as text with three decimals: `.012`, or `<.001`."""
    return "<.001" if value < 0.001 else f"{value:.3f}".removeprefix("0")


def score_columns(leaderboard: Leaderboard) -> Columns:
    """Return the titles of the columns of test scores, and what they show of a row."""

    def of_suite(suite: str) -> Callable[[Row], Estimate]:
        return lambda row: row.suites["test"][suite]

    return [*((suite, of_suite(suite)) for suite in leaderboard.suites), ("average", lambda row: row.average["test"])]


def _columns(leaderboard: Leaderboard) -> Columns:
    return [*score_columns(leaderboard), ("on validation", lambda row: row.average["validation"])]


def _cells(row: Row, columns: Columns) -> list[tuple[str, str]]:
    return [(title, _shown(of(row))) for title, of in columns]


def best_cells(leaderboard: Leaderboard) -> set[tuple[str, str]]:
    """Return the (row, column)s with the highest shown value of their column."""
    best = set()
    for title, of in _columns(leaderboard):
        highest = max(percent(of(row).value) for row in leaderboard.rows)
        best |= {(row.name, title) for row in leaderboard.rows if percent(of(row).value) == highest}
    return best


def _shown(estimate: Estimate) -> str:
    return f"{100 * estimate.value:.1f} ({100 * estimate.low:.0f}-{100 * estimate.high:.0f})"


def _shown_difference(leaderboard: Leaderboard, name: str, role: Role) -> str:
    for shown in leaderboard.comparisons:
        if shown.comparison.ours == name and shown.role == role:
            p = p_value(shown.holm_p)
            return f"{_in_points(shown.comparison.average)} p{'' if p.startswith('<') else '='}{p}"
    return "itself"


def _in_points(difference: Difference) -> str:
    return f"{100 * difference.value:+.1f} ({100 * difference.low:+.1f}, {100 * difference.high:+.1f})"


def _marked(leaderboard: Leaderboard, name: str) -> str:
    return f"→ {name}" if name == leaderboard.selected else f"  {name}"


def _style(leaderboard: Leaderboard, name: str) -> str | None:
    return "green" if name == leaderboard.selected else "dim" if name == leaderboard.names("base")[0] else None


def _roles(leaderboard: Leaderboard) -> dict[Role, str]:
    roles: dict[Role, str] = {
        "base": leaderboard.names("base")[0],
        "best_agent": f"best agent ({leaderboard.best_agent})",
    }
    if leaderboard.champion is not None and leaderboard.champion.row is not None:
        roles["champion"] = f"champion ({leaderboard.champion.name})"
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
        f"{split.capitalize()} split, {_of_items(leaderboard, split)}, {leaderboard.dtype}, {decoding(leaderboard)}, "
        f"lm-eval {leaderboard.lm_eval_version}. Percent, with {100 * leaderboard.confidence:g} % intervals; "
        f"the best of a column is bold."
    )


def decoding(leaderboard: Leaderboard) -> str:
    """Return how answers were chosen: the same on all suites, or suite by suite."""
    found = {suite: by_split["test"].decoding for suite, by_split in leaderboard.asked.items()}
    if len(set(found.values())) == 1:
        return next(iter(found.values()))
    return ", ".join(f"{how} on {suite}" for suite, how in found.items())


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
        f"Holm-adjusted over these {len(leaderboard.comparisons)} comparisons. {_power(leaderboard)}"
    )


def _power(leaderboard: Leaderboard) -> str:
    averages = [shown.comparison.average for shown in leaderboard.comparisons]
    found = {f"{100 * detected(average, confidence=leaderboard.confidence):.1f}" for average in averages}
    low, high = min(found, key=float), max(found, key=float)
    return (
        f"A true difference of {low if low == high else f'{low} to {high}'} points is detected with {POWER:.0%} power."
    )


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"
