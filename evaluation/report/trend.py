"""Scores over runs as a drawing in SVG: a line for each role, over the shades of its intervals."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from evaluation.report.page.marks import Scale

_WIDTH, _HEIGHT, _LEFT, _TOP, _BELOW = 640, 240, 44, 24, 24
# Told apart by people who see colors differently, on light and on dark pages.
_COLORS = ("#0072b2", "#d55e00")


class At(NamedTuple):
    """A score, as shares, at the number of a run."""

    run: int
    value: float
    low: float
    high: float


def trend_svg(roles: Mapping[str, Sequence[At]]) -> str:
    """Draw the scores of one or two roles over the runs; each role's points are in the order of runs."""
    every = [point for points in roles.values() for point in points]
    runs, limits = [point.run for point in every] or [1], [limit for point in every for limit in point[2:]] or [0, 1]
    across = Scale(min(runs), max(max(runs), min(runs) + 1))
    up = Scale(max(0.0, min(limits) - 0.02), min(1.0, max(limits) + 0.02))

    def place(run: float, value: float) -> str:
        width, height = _WIDTH - _LEFT - 8, _HEIGHT - _TOP - _BELOW
        return f"{_LEFT + width * across.at(run) / 100:.1f},{_TOP + height * (1 - up.at(value) / 100):.1f}"

    ends = sorted({across.low, max(runs)})
    parts = [_text(_LEFT - 4, place(runs[0], tick), f"{tick:.0%}", "end") for tick in up.ticks()]
    parts += [_text(None, place(run, up.low), f"run {run:.0f}", "middle", down=16) for run in ends]
    for number, ((role, points), color) in enumerate(zip(roles.items(), _COLORS, strict=False)):
        parts.append(f'<text x="{_LEFT + 120 * number}" y="14" fill="{color}">{role}</text>')
        if points:
            above = [place(point.run, point.high) for point in points]
            below = [place(point.run, point.low) for point in reversed(points)]
            middle = [place(point.run, point.value) for point in points]
            parts.append(f'<polygon points="{" ".join(above + below)}" fill="{color}" fill-opacity="0.15"/>')
            parts.append(f'<polyline points="{" ".join(middle)}" fill="none" stroke="{color}" stroke-width="2"/>')
            parts += [f'<circle cx="{x}" cy="{y}" r="2.5" fill="{color}"/>' for x, y in (m.split(",") for m in middle)]
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" '
    return f'{head}font-family="sans-serif" font-size="11" fill="#888">{"".join(parts)}</svg>'


def _text(x: int | None, place: str, words: str, anchor: str, *, down: int = 4) -> str:
    left, top = place.split(",")
    return f'<text x="{left if x is None else x}" y="{float(top) + down:.1f}" text-anchor="{anchor}">{words}</text>'
