"""The page's text: the template filled with a run's content, drawings included."""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import jinja2
from markupsafe import Markup

from evaluation.judging.comparing import Role, ShownComparison
from evaluation.judging.leaderboard import Leaderboard
from evaluation.power import POWER, detected
from evaluation.report.page.content import Page
from evaluation.report.page.flips import Flip
from evaluation.report.page.marks import Scale, dots, interval
from evaluation.report.page.searched import history_plot, trade_offs
from evaluation.report.render import best_cells, score_columns, yardstick_notes
from evaluation.report.searches import NOT_FINAL, SHOWN, outcome, standing
from evaluation.report.words import decoding, p_value
from evaluation.statistics import Difference, Estimate

_ROLES: dict[Role, str] = {
    "champion": "Against the champion",
    "best_agent": "Against the best agent",
    "base": "Against the base",
    "reference": "Against the reference",
    "yardstick": "Against the yardstick",
}
# Unicode's categories of characters that are obeyed rather than shown.
_ACTING = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
_WHOLE = Scale(0.0, 1.0)


@dataclass(frozen=True)
class _Forest:
    """One panel of differences: variants minus the model that the heading names."""

    heading: str
    scale: Scale
    rows: Sequence[ShownComparison]


@dataclass(frozen=True)
class _Specialist:
    """One suite: base, best agent and selected variant, and the share of that agent's gain that the variant keeps."""

    suite: str
    base: Estimate
    agent: str
    specialist: Estimate
    variant: Estimate
    kept: float | None


def to_page(page: Page) -> str:
    """Return the report as one HTML document, the same bytes for the same content."""
    board = page.board
    headline = [shown for role in _ROLES for shown in _shown(board, role) if shown.comparison.ours == board.selected]
    return _template().render(
        page=page,
        board=board,
        selected=board.row(board.selected),
        headline=headline,
        roles=_ROLES,
        forests=_forests(page),
        by_suite=_by_suite(page, headline),
        specialists=_specialists(board),
        suites=board.suites,
        columns=score_columns(board),
        notes=yardstick_notes(board),
        best=best_cells(board),
        flips=_grouped(page.flips),
        power=POWER,
    )


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_spelled,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": lambda share: f"{100 * share:.1f}",
        "points": lambda share: f"{100 * share:+.1f}",
        "p": p_value,
        "sentence": lambda words: f"{words[:1].upper()}{words[1:]}.",
        "number": lambda value: f"{value:.4g}",
        "seconds": lambda value: f"{value:,.1f}",
        "mebibytes": lambda value: f"{value / 2**20:,.0f}",
    }
    environment.globals |= {"score_mark": _score_mark, "difference_mark": _difference_mark}
    environment.globals |= {"specialist_mark": _specialist_mark, "detected": detected, "rival": _rival}
    environment.globals |= {"decoding": decoding, "history_plot": history_plot, "trade_offs": trade_offs}
    environment.globals |= {"standing": standing, "outcome": outcome, "not_final": NOT_FINAL, "trials_shown": SHOWN}
    return environment.get_template("page.html.j2")


def _spelled(value: object) -> object:
    r"""Return text with its control and direction characters spelled out (\x1b).

    Text of models and users is hostile: it may hold marks that turn the page's text around, or escapes that a terminal
    obeys when the page's source is printed.
    """
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    return "".join(_escape(character) if _acts(character) else character for character in value)


def _acts(character: str) -> bool:
    return character not in "\n\t" and unicodedata.category(character) in _ACTING


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def _forests(page: Page) -> list[_Forest]:
    """Return one panel for each model that variants are compared with, its rows being the variants."""
    board, forests = page.board, []
    for role in _ROLES:
        shown = _shown(board, role)
        for model in dict.fromkeys(each.comparison.theirs for each in shown):
            rows = [each for each in shown if each.comparison.theirs == model]
            scale = _scale([row.comparison.average for row in rows], board.confidence)
            forests.append(_Forest(_heading(page, rows[0]), scale, rows))
    return forests


def _by_suite(page: Page, headline: Sequence[ShownComparison]) -> list[_Forest]:
    """Return one panel for each model that the selected variant is compared with, its rows being the suites."""
    return [
        _Forest(_heading(page, shown), _scale(list(shown.comparison.suites.values()), page.board.confidence), [shown])
        for shown in headline
        if shown.role != "reference"
    ]


def _heading(page: Page, shown: ShownComparison) -> str:
    """Return the heading of a comparison; where two runs are compared, the other model is no champion."""
    if shown.role == "base":
        return _ROLES["base"]
    if shown.role == "champion" and not page.decision:
        return f"Against {shown.comparison.theirs}"
    return f"{_ROLES[shown.role]}: {_rival(page.board, shown)}"


def _rival(board: Leaderboard, shown: ShownComparison) -> str:
    champion = board.champion if shown.role == "champion" else None
    return champion.name if champion else shown.comparison.theirs


def _scale(differences: Sequence[Difference], confidence: float) -> Scale:
    bands = [detected(difference, confidence=confidence) for difference in differences]
    low = min(0.0, *(difference.low for difference in differences), *(-band for band in bands))
    return Scale(low, max(0.0, *(difference.high for difference in differences), *bands))


def _shown(board: Leaderboard, role: Role) -> list[ShownComparison]:
    return [shown for shown in board.comparisons if shown.role == role]


def _specialists(board: Leaderboard) -> list[_Specialist]:
    base, variant = board.row(board.names("base")[0]), board.row(board.selected)
    found = []
    for suite in board.suites if board.names("agent") else ():
        agent = max(board.names("agent"), key=lambda name: _on_validation(board, name, suite))
        start, end, ours = (row.suites["test"][suite] for row in (base, board.row(agent), variant))
        gain = end.value - start.value
        kept = (ours.value - start.value) / gain if gain > 0 else None
        found.append(_Specialist(suite, start, agent, end, ours, kept))
    return found


def _on_validation(board: Leaderboard, name: str, suite: str) -> float:
    """Return what decides which agent is best on a suite, without the last bits, which must not decide a tie."""
    return round(board.row(name).suites["validation"][suite].value, 12)


def _grouped(flips: Sequence[Flip]) -> dict[tuple[str, str], list[Flip]]:
    groups: dict[tuple[str, str], list[Flip]] = {}
    for flip in flips:
        groups.setdefault((flip.theirs_name, flip.suite), []).append(flip)
    return groups


def _score_mark(estimate: Estimate, kind: str) -> Markup:
    return interval(_WHOLE, estimate.low, estimate.value, estimate.high, kind)


def _difference_mark(scale: Scale, difference: Difference, confidence: float) -> Markup:
    band = detected(difference, confidence=confidence)
    return interval(scale, difference.low, difference.value, difference.high, "variant", band=band)


def _specialist_mark(found: _Specialist) -> Markup:
    points = [("base", found.base.value), ("agent", found.specialist.value), ("variant", found.variant.value)]
    return dots(_WHOLE, points)
