"""Words and numbers that the leaderboard's tables share. Numbers are percent."""

import re
from collections.abc import Sequence

from evaluation.judging.leaderboard import Leaderboard
from evaluation.statistics import Difference
from evaluation.suites import Split


def percent(value: float) -> float:
    """Return a share in percent, with the digits that scores are shown with."""
    return round(100 * value, 1)


def p_value(value: float) -> str:
    """Return a p-value as text with three decimals: `.012`, or `<.001`."""
    return "<.001" if value < 0.001 else f"{value:.3f}".removeprefix("0")


def in_points(difference: Difference) -> str:
    """Return a difference with its interval in percentage points."""
    return f"{100 * difference.value:+.1f} ({100 * difference.low:+.1f}, {100 * difference.high:+.1f})"


def decoding(leaderboard: Leaderboard) -> str:
    """Return how answers were chosen: the same on all suites, or suite by suite."""
    found = {suite: by_split["test"].decoding for suite, by_split in leaderboard.asked.items()}
    if len(set(found.values())) == 1:
        return next(iter(found.values()))
    return ", ".join(f"{how} on {suite}" for suite, how in found.items())


def of_items(leaderboard: Leaderboard, split: Split) -> str:
    """Return the suites of a split and the number of their items."""
    sizes = {suite: estimate.n for suite, estimate in leaderboard.rows[0].suites[split].items()}
    if len(set(sizes.values())) == 1:
        return f"{len(sizes)} suite{'s' * (len(sizes) > 1)} of {next(iter(sizes.values()))} items"
    return ", ".join(f"{suite} of {n} items" for suite, n in sizes.items())


def marked(leaderboard: Leaderboard, name: str) -> str:
    """Return the name for a terminal, with an arrow if it was selected."""
    return f"→ {name}" if name == leaderboard.selected else f"  {name}"


def style(leaderboard: Leaderboard, name: str) -> str | None:
    """Return the style of a model's row on a terminal."""
    if name in leaderboard.yardsticks:
        return "italic"
    return "green" if name == leaderboard.selected else "dim" if name == leaderboard.names("base")[0] else None


def plain(text: str) -> str:
    """Return text from users, such as a path or a pattern, with a backslash before what Markdown would obey."""
    return re.sub(r"([\\`*_\[\]<>|~])", r"\\\1", text)


def line(cells: Sequence[str]) -> str:
    """Return a row of a table in GitHub Markdown."""
    return f"| {' | '.join(cells)} |"
