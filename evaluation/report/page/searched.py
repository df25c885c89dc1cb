"""The search of a recipe on the page: candidates in the order in which they were tried, and the best trade-offs."""

from markupsafe import Markup

from evaluation.report.page.plots import Point, scatter
from evaluation.report.searches import standing
from evaluation.search.history import History, Trial

_KINDS = {"winner": "variant", "runner-up": "agent"}


def history_plot(history: History) -> Markup:
    """Draw each candidate's average on the items that all of them saw, and the best one so far."""
    points = [_point(history, trial, trial.number, trial.first["average"]) for trial in history.trials]
    best = [Point(point.x, value, "") for point, value in zip(points, history.best_so_far, strict=True)]
    shown = f"{len(points)} candidates; the best average on the first items is {100 * best[-1].y:.1f} percent."
    return scatter(_ordered(points), best, x="trial", y="average, %", shown=shown, percent=False)


def trade_offs(history: History) -> Markup:
    """Draw each candidate's worst suite against its average on the items that all of them saw, and the best of both."""
    points, front = (
        [_point(history, trial, trial.first["average"], trial.first["worst"]) for trial in trials]
        for trials in (history.trials, history.trade_offs)
    )
    shown = f"{len(front)} of {len(points)} candidates are the best trade-offs of average and worst suite."
    return scatter(_ordered(points), front, x="average, %", y="worst suite, %", shown=shown, percent=True)


def _point(history: History, trial: Trial, x: float, y: float) -> Point:
    return Point(x, y, _KINDS.get(standing(history, trial), "base"))


def _ordered(points: list[Point]) -> list[Point]:
    """Draw the winner last, above the others."""
    return sorted(points, key=lambda point: ("base", "agent", "variant").index(point.kind))
