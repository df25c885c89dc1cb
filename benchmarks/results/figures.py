"""Figures of the results, as SVG with the same bytes for the same runs."""

import io
from collections.abc import Mapping, Sequence

import matplotlib as mpl
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from benchmarks.results.analysis import Line

_COLORS = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#aa3377")


def methods_svg(groups: Mapping[str, Sequence[Line]]) -> str:
    """Draw each method's score with its interval in every group, the method that is best on average on top."""
    means = {
        name: sum(_scores(lines)[name] for lines in groups.values()) for name in _scores(next(iter(groups.values())))
    }
    order = sorted(means, key=means.__getitem__)
    figure = Figure(figsize=(8, 1.4 + 0.42 * len(order)), layout="constrained")
    FigureCanvasSVG(figure)
    axes = figure.add_subplot()
    for index, (group, lines) in enumerate(groups.items()):
        offset = 0.6 * (index + 0.5) / len(groups) - 0.3
        for line in lines:
            height = order.index(line.name) - offset
            color = _COLORS[index % len(_COLORS)]
            axes.plot([line.score.low, line.score.high], [height, height], color=color, linewidth=1.2)
            axes.plot(line.score.value, height, "o", color=color, markersize=4.5)
        axes.plot([], [], "o-", color=_COLORS[index % len(_COLORS)], label=group)
    axes.set_yticks(range(len(order)), order)
    axes.set_xlabel("average over the suites in percent, test split, with the 95 % interval over seeds and items")
    axes.grid(axis="x", color="#dddddd")
    axes.spines[["top", "right", "left"]].set_visible(False)
    figure.legend(frameon=False, loc="outside upper center", ncols=len(groups))
    return _to_svg(figure)


def _scores(lines: Sequence[Line]) -> dict[str, float]:
    return {line.name: line.score.value for line in lines}


def _to_svg(figure: Figure) -> str:
    buffer = io.StringIO()
    # Names of parts from a fixed salt, and no date, so that the bytes depend on the runs alone.
    with mpl.rc_context({"svg.hashsalt": "rammerge", "svg.fonttype": "none", "font.family": "sans-serif"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return "\n".join(line.rstrip() for line in buffer.getvalue().splitlines()) + "\n"
