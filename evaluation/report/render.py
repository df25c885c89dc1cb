"""The leaderboard for people: Markdown for artifacts, rich tables for a terminal.

Numbers are percent.
"""

from collections.abc import Callable, Iterator, Sequence

from rich import box
from rich.markup import escape
from rich.table import Table

from evaluation.judging.leaderboard import TIES, Leaderboard, Row
from evaluation.report.differences import differences_to_markdown
from evaluation.report.words import decoding, line, marked, of_items, percent, plain, style
from evaluation.statistics import Estimate
from evaluation.suites import Split

Columns = Sequence[tuple[str, Callable[[Row], Estimate]]]

# This many columns of scores fit beside a model's name on a page of Prefect's dashboard at desktop width.
_COLUMNS_A_TABLE = 5


def to_markdown(leaderboard: Leaderboard) -> str:
    """Return the leaderboard, the differences of the variants, and how both were made, as GitHub Markdown."""
    columns = _columns(leaderboard)
    tables = [columns[start : start + _COLUMNS_A_TABLE] for start in range(0, len(columns), _COLUMNS_A_TABLE)]
    return "\n".join(
        [
            _conditions(leaderboard, "test"),
            "",
            *(text for table in tables for text in (*_scores(leaderboard, table), "")),
            _selection(leaderboard),
            "",
            *(text for note in yardstick_notes(leaderboard) for text in (plain(note), "")),
            *differences_to_markdown(leaderboard),
            "",
        ]
    )


def _scores(leaderboard: Leaderboard, columns: Columns) -> Iterator[str]:
    yield line(["model", "kind", *(title for title, _ in columns)])
    yield line(["---", "---", *("---:" for _ in columns)])
    best = best_cells(leaderboard)
    for row in leaderboard.rows:
        cells = [f"**{cell}**" if (row.name, title) in best else cell for title, cell in _cells(row, columns)]
        name = f"→ **{row.name}**" if row.name == leaderboard.selected else row.name
        yield line([name, row.kind, *cells])


def to_rich(leaderboard: Leaderboard) -> Table:
    """Return the leaderboard as a table for a terminal: best of each column bold, the selected variant marked."""
    # A note may have a path in it, whose brackets rich would take for a style.
    notes = map(escape, yardstick_notes(leaderboard))
    caption = "\n".join([_conditions(leaderboard, "test"), _selection(leaderboard), *notes])
    table = Table(title="Leaderboard", caption=caption, caption_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("model", no_wrap=True)
    columns = _columns(leaderboard)
    for title, _ in columns:
        table.add_column(title, justify="right")
    best = best_cells(leaderboard)
    for row, following in zip(leaderboard.rows, [*leaderboard.rows[1:], None], strict=True):
        cells = [f"[bold]{cell}[/bold]" if (row.name, title) in best else cell for title, cell in _cells(row, columns)]
        ends_kind = following is not None and following.kind != row.kind
        name = marked(leaderboard, row.name) + (f" ({row.kind})" if row.name in leaderboard.yardsticks else "")
        table.add_row(name, *cells, style=style(leaderboard, row.name), end_section=ends_kind)
    return table


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
    """Return the (row, column)s with the highest shown value of their column; a bound is not among them."""
    best = set()
    rows = [row for row in leaderboard.rows if row.kind != "bound"]
    for title, of in _columns(leaderboard):
        highest = max(percent(of(row).value) for row in rows)
        best |= {(row.name, title) for row in rows if percent(of(row).value) == highest}
    return best


def yardstick_notes(leaderboard: Leaderboard) -> list[str]:
    """Return a sentence about each yardstick, in the order of the rows."""
    known = leaderboard.yardsticks
    return [f"{row.name}: {known[row.name].note}." for row in leaderboard.rows if row.name in known]


def _shown(estimate: Estimate) -> str:
    return f"{100 * estimate.value:.1f} ({100 * estimate.low:.0f}-{100 * estimate.high:.0f})"


def _conditions(leaderboard: Leaderboard, split: Split) -> str:
    return (
        f"{split.capitalize()} split, {of_items(leaderboard, split)}, {leaderboard.dtype}, {decoding(leaderboard)}, "
        f"lm-eval {leaderboard.lm_eval_version}. Percent, with {100 * leaderboard.confidence:g} % intervals; "
        f"the best of a column is bold."
    )


def _selection(leaderboard: Leaderboard) -> str:
    average = leaderboard.row(leaderboard.selected).average["validation"]
    return (
        f"Selected on the validation split ({of_items(leaderboard, 'validation')}): {leaderboard.selected}, average "
        f"{_shown(average)}; {TIES}."
    )
