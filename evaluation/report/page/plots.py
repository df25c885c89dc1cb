"""Scatter plots as SVG: a few hundred points, a line through some of them, and round numbers at the edges."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from evaluation.report.page.marks import Scale

_WIDTH, _HEIGHT, _LEFT, _BELOW = 480, 260, 44, 34


@dataclass(frozen=True)
class Point:
    """A point, and the kind that gives it its color."""

    x: float
    y: float
    kind: str


def scatter(points: Sequence[Point], line: Sequence[Point], *, x: str, y: str, shown: str, percent: bool) -> Markup:
    """Draw points, and steps through `line`.

    Args:
        points: what is drawn, the last above the others.
        line: points in order, which steps join.
        x: title of the horizontal axis.
        y: title of the vertical axis, whose values are shares.
        shown: what a screen reader says instead.
        percent: whether horizontal values are shares too.
    """
    across, up = _scale([point.x for point in points]), _scale([point.y for point in points])

    def place(point: Point) -> tuple[float, float]:
        width, height = _WIDTH - _LEFT - 8, _HEIGHT - _BELOW - 8
        return (
            round(_LEFT + width * across.at(point.x) / 100, 1),
            round(8 + height * (1 - up.at(point.y) / 100), 1),
        )

    parts = [*_axis(across, up, place, percent=percent)]
    if line:
        steps = "".join(f"H{left}V{top}" for left, top in map(place, line[1:]))
        parts.append(Markup('<path class="line" d="M{} {}{}"/>').format(*place(line[0]), steps))
    for point in points:
        parts.append(Markup('<circle class="{}" cx="{}" cy="{}" r="3.5"/>').format(point.kind, *place(point)))
    words = Markup('<text x="{}" y="{}" text-anchor="end">{}</text><text x="{}" y="{}">{}</text>')
    parts.append(words.format(_WIDTH - 8, _HEIGHT - 4, x, 0, -6, y))
    head = Markup('<svg class="plot" viewBox="0 -16 {} {}" role="img" aria-label="{}">')
    return head.format(_WIDTH, _HEIGHT + 16, shown) + Markup("").join(parts) + Markup("</svg>")


def _scale(values: Sequence[float]) -> Scale:
    low, high = min(values), max(values)
    room = (high - low) * 0.05 or 0.5
    return Scale(low - room, high + room)


def _axis(across: Scale, up: Scale, place: Callable[[Point], tuple[float, float]], *, percent: bool) -> list[Markup]:
    tick = Markup('<path class="tick" d="M{} {}{}{}"/><text x="{}" y="{}" text-anchor="{}">{}</text>')
    found = []
    for value in up.ticks():
        _, top = place(Point(across.low, value, ""))
        found.append(tick.format(_LEFT, top, "H", _WIDTH - 8, _LEFT - 6, top + 4, "end", f"{100 * value:.4g}"))
    for value in across.ticks():
        left, _ = place(Point(value, up.low, ""))
        bottom = _HEIGHT - _BELOW
        words = f"{100 * value:.4g}" if percent else f"{value:.4g}"
        found.append(tick.format(left, 8, "V", bottom, left, bottom + 14, "middle", words))
    return found
