"""Small drawings for the cells of a table, as SVG that stretches with its cell.

A drawing is 100 units wide and stands for a range of values. Lines keep their width when it stretches, and a dot is a
line without length and with round ends, so that it stays round.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

_HEIGHT = 20
_FINE_STEPS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.25, 0.5)


@dataclass(frozen=True)
class Scale:
    """The range of values that a drawing's width stands for."""

    low: float
    high: float

    def at(self, value: float) -> float:
        """Return where a value lies, from 0 to 100; values outside lie on the edge."""
        return round(100 * min(1.0, max(0.0, (value - self.low) / (self.high - self.low))), 2)

    def ticks(self) -> list[float]:
        """Return three to seven round values inside the range."""
        for step in (*_FINE_STEPS, *(each * scale for scale in (1, 10, 100, 1000) for each in (1, 2, 5))):
            first, last = -(-self.low // step), self.high // step
            if last - first <= 6:
                return [round(step * number, 6) for number in range(int(first), int(last) + 1)]
        return [self.low, self.high]


def interval(scale: Scale, low: float, value: float, high: float, kind: str, *, band: float | None = None) -> Markup:
    """Draw an interval with its value; `band` shades what lies within that distance of 0."""
    parts = []
    if band is not None:
        left, right = scale.at(-band), scale.at(band)
        parts.append(Markup('<path class="band" d="M{} 0H{}V{}H{}z"/>').format(left, right, _HEIGHT, left))
    if scale.low < 0 < scale.high:
        parts.append(Markup('<path class="zero" d="M{} 0V{}"/>').format(scale.at(0), _HEIGHT))
    middle = _HEIGHT // 2
    parts.append(Markup('<path class="line" d="M{} {}H{}"/>').format(scale.at(low), middle, scale.at(high)))
    parts.append(Markup('<path class="dot" d="M{} {}h0"/>').format(scale.at(value), middle))
    return _svg(kind, parts)


def dots(scale: Scale, points: Sequence[tuple[str, float]]) -> Markup:
    """Draw values on one line, each as a dot of its kind, joined by a line from the lowest to the highest."""
    middle = _HEIGHT // 2
    places = [scale.at(value) for _, value in points]
    parts = [Markup('<path class="line" d="M{} {}H{}"/>').format(min(places), middle, max(places))]
    parts += [
        Markup('<path class="dot {}" d="M{} {}h0"/>').format(kind, place, middle)
        for (kind, _), place in zip(points, places, strict=True)
    ]
    return _svg("dots", parts)


def _svg(kind: str, parts: Sequence[Markup]) -> Markup:
    # Hidden from screen readers: the numbers that it shows stand in the row beside it.
    head = Markup('<svg class="mark {}" viewBox="0 0 100 {}" preserveAspectRatio="none" aria-hidden="true">')
    return head.format(kind, _HEIGHT) + Markup("").join(parts) + Markup("</svg>")
