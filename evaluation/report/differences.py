"""The differences between variants and what they are compared with: Markdown, and rich tables. Numbers are percent."""

from collections.abc import Iterator
from typing import NamedTuple

from rich import box
from rich.markup import escape
from rich.table import Table

from evaluation.judging.comparing import Role
from evaluation.judging.leaderboard import Leaderboard
from evaluation.power import POWER, detected
from evaluation.report.words import decoding, in_points, line, marked, of_items, p_value, style


class _Reference(NamedTuple):
    """What variants are compared with.

    Attributes:
        role: what it stands for.
        model: its row.
        heading: over a column, where text beside the table says more.
        text: what that text says.
        named: over a column where there is no such text.
    """

    role: Role
    model: str
    heading: str
    text: str
    named: str


def differences_to_markdown(leaderboard: Leaderboard) -> Iterator[str]:
    """Yield the lines of the variants' differences, and of how they were made."""
    references = _references(leaderboard)
    yield (
        f"Difference of the averages over the suites, test split, {of_items(leaderboard, 'test')}: variant minus "
        f"{'; '.join(reference.text for reference in references)}"
    )
    yield ""
    yield line(["variant", *(reference.heading for reference in references)])
    yield line(["---", *("---:" for _ in references)])
    for name in leaderboard.names("variant"):
        yield line([name, *(_shown_difference(leaderboard, name, reference) for reference in references)])
    yield ""
    yield _tests(leaderboard)


def differences_to_rich(leaderboard: Leaderboard) -> Table:
    """Return the variants' differences from everything that they are compared with as a table for a terminal."""
    references = _references(leaderboard)
    title = "Variant minus … (average over the suites, percentage points)"
    caption = f"Test split, {of_items(leaderboard, 'test')}, {leaderboard.dtype}. {_tests(leaderboard)}"
    table = Table(title=title, caption=caption, caption_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("variant", no_wrap=True)
    for reference in references:
        table.add_column(reference.named, justify="right")
    for name in leaderboard.names("variant"):
        cells = [_shown_difference(leaderboard, name, reference) for reference in references]
        table.add_row(marked(leaderboard, name), *cells, style=style(leaderboard, name))
    return table


def suites_to_rich(leaderboard: Leaderboard) -> Table:
    """Return the selected variant against the champion, suite by suite, as a table for a terminal."""
    shown = next(shown for shown in leaderboard.comparisons if shown.role == "champion")
    ours, theirs = (leaderboard.row(name) for name in (shown.comparison.ours, shown.comparison.theirs))
    caption = (
        f"Test split, {leaderboard.dtype}, {decoding(leaderboard)}, lm-eval {leaderboard.lm_eval_version}; percent, "
        f"paired by item, with {100 * leaderboard.confidence:g} % intervals. A true difference of the detectable size "
        f"is shown with {100 * POWER:g} % power."
    )
    ours_name, theirs_name = escape(ours.name), escape(theirs.name)  # a run may have been renamed in MLflow
    table = Table(
        title=f"{ours_name} minus {theirs_name}", caption=caption, caption_justify="left", box=box.SIMPLE_HEAD
    )
    table.add_column("suite", no_wrap=True)
    for title in (ours_name, theirs_name, "difference", "detectable", "won, lost", "p"):
        table.add_column(title, justify="right")
    parts = {**shown.comparison.suites, "average": shown.comparison.average}
    for suite, difference in parts.items():
        both = (row.average["test"] if suite == "average" else row.suites["test"][suite] for row in (ours, theirs))
        table.add_row(
            suite,
            *(f"{100 * estimate.value:.1f}" for estimate in both),
            in_points(difference),
            f"±{100 * detected(difference, confidence=leaderboard.confidence):.1f}",
            f"{difference.wins}, {difference.losses} of {difference.n}",
            p_value(difference.p_value),
            style="bold" if suite == "average" else None,
        )
    return table


def _references(leaderboard: Leaderboard) -> list[_Reference]:
    base, best, champion = leaderboard.names("base")[0], leaderboard.best_agent, leaderboard.champion
    found = [
        _Reference("base", base, "base", "the base", base),
        _Reference("best_agent", best, "best agent", f"the best agent, {best}", f"best agent ({best})"),
    ]
    if champion is not None and champion.row is not None:
        words = f"the champion, {champion.name}", f"champion ({champion.name})"
        found.append(_Reference("champion", champion.row, "champion", *words))
    if (reference := leaderboard.reference) is not None:
        method = leaderboard.reference_method
        words = f"the reference, which is the best {method}, {reference}", f"best {method} ({reference})"
        found.append(_Reference("reference", reference, "reference", *words))
    compared = [*leaderboard.names("yardstick"), *leaderboard.names("ensemble")]
    return found + [_Reference("yardstick", name, name, name, name) for name in compared]


def _shown_difference(leaderboard: Leaderboard, name: str, reference: _Reference) -> str:
    for shown in leaderboard.comparisons:
        if (shown.comparison.ours, shown.role, shown.comparison.theirs) == (name, reference.role, reference.model):
            p = p_value(shown.holm_p)
            return f"{in_points(shown.comparison.average)} p{'' if p.startswith('<') else '='}{p}"
    return "itself"


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
    size = low if low == high else f"{low} to {high}"
    return f"A true difference of {size} points is detected with {100 * POWER:g} % power."
