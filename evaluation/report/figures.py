"""The leaderboard as one figure: averages with their intervals, and every suite as a dot."""

import io

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from evaluation.judging.leaderboard import Leaderboard

# Tol's bright and medium-contrast schemes, which color-blind readers can tell apart.
_COLORS = {"base": "#7f7f7f", "agent": "#4477aa", "champion": "#aa3377", "variant": "#228833"}
_COLORS |= dict.fromkeys(("yardstick", "ensemble", "bound"), "#997700")
_MARKERS = "o^sDvP*X<>"


def leaderboard_png(leaderboard: Leaderboard) -> bytes:
    """Return `leaderboard_figure` as a PNG image."""
    return to_png(leaderboard_figure(leaderboard))


def to_png(figure: Figure) -> bytes:
    """Return a figure as a PNG image."""
    buffer = io.BytesIO()
    # Without the library's version in the file, the same figure gives the same bytes.
    figure.savefig(buffer, format="png", dpi=120, metadata={"Software": None})
    return buffer.getvalue()


def leaderboard_figure(leaderboard: Leaderboard) -> Figure:
    """Draw the test split's leaderboard: one line per model, in the order of the rows."""
    rows = leaderboard.rows
    figure = Figure(figsize=(9, 1.9 + 0.34 * len(rows)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    _draw_averages(axes, leaderboard)
    _draw_suites(axes, leaderboard)
    _name_models(axes, leaderboard)
    axes.set_xlim(-2, 102)
    axes.grid(axis="x", color="#dddddd")
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.set_xlabel(f"score in percent, test split, {rows[0].average['test'].n} items, {leaderboard.dtype}")
    confidence = f"{100 * leaderboard.confidence:g} %"
    title = f"Average over the suites (tick) with its {confidence} interval (band), and each suite (mark)"
    # Over the whole figure: above the axes alone, it would be cut where the models' names are long.
    figure.suptitle(title, x=0.01, horizontalalignment="left", fontsize=11)
    figure.legend(loc="outside lower center", ncols=min(len(leaderboard.suites), 5), frameon=False)
    return figure


def _draw_averages(axes: Axes, leaderboard: Leaderboard) -> None:
    for height, row in enumerate(leaderboard.rows):
        average = row.average["test"]
        color = _COLORS[row.kind]
        axes.barh(height, 100 * (average.high - average.low), 0.5, 100 * average.low, color=color, alpha=0.3)
        axes.plot(100 * average.value, height, "|", color=color, markersize=17, markeredgewidth=3)


def _draw_suites(axes: Axes, leaderboard: Leaderboard) -> None:
    for index, suite in enumerate(leaderboard.suites):
        values = [100 * row.suites["test"][suite].value for row in leaderboard.rows]
        marker = _MARKERS[index % len(_MARKERS)]
        # Shifted a little up and down, because the suites of a good model lie close together.
        offset = 0.6 * (index + 0.5) / len(leaderboard.suites) - 0.3
        heights = [height + offset for height in range(len(values))]
        axes.plot(values, heights, marker, label=suite, markersize=6, color="black", fillstyle="none")


def _name_models(axes: Axes, leaderboard: Leaderboard) -> None:
    rows, selected = leaderboard.rows, leaderboard.selected
    axes.set_yticks(range(len(rows)), [f"{row.name} (selected)" if row.name == selected else row.name for row in rows])
    for label, row in zip(axes.get_yticklabels(), rows, strict=True):
        label.set_color(_COLORS[row.kind])
        label.set_fontweight("bold" if row.name == selected else "normal")
    axes.invert_yaxis()
    axes.tick_params(left=False)
