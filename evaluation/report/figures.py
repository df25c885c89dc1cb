"""The leaderboard as one figure: averages with their intervals, and every suite as a dot."""

import io

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from evaluation.judging.leaderboard import Leaderboard

_COLOURS = {"base": "#7f7f7f", "agent": "#4477aa", "variant": "#228833"}  # Tol's bright scheme, distinct to all eyes
_MARKERS = "o^sDvP*X<>"


def leaderboard_png(leaderboard: Leaderboard, *, dots_per_inch: int = 120) -> bytes:
    """Return the test split's leaderboard as a PNG image: one line a model, in the order of the rows."""
    rows = leaderboard.rows
    figure = Figure(figsize=(9, 1.9 + 0.34 * len(rows)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for height, row in enumerate(rows):
        average = row.average["test"]
        colour = _COLOURS[row.kind]
        axes.barh(height, 100 * (average.high - average.low), 0.5, 100 * average.low, color=colour, alpha=0.3)
        axes.plot(100 * average.value, height, "|", color=colour, markersize=17, markeredgewidth=3)
    for index, suite in enumerate(leaderboard.suites):
        values = [100 * row.suites["test"][suite].value for row in rows]
        marker = _MARKERS[index % len(_MARKERS)]
        # A little above and below one another, since good models' suites lie close together.
        offset = 0.6 * (index + 0.5) / len(leaderboard.suites) - 0.3
        heights = [height + offset for height in range(len(rows))]
        axes.plot(values, heights, marker, label=suite, markersize=6, color="black", fillstyle="none")
    axes.set_yticks(
        range(len(rows)), [f"{row.name} (selected)" if row.name == leaderboard.selected else row.name for row in rows]
    )
    for label, row in zip(axes.get_yticklabels(), rows, strict=True):
        label.set_color(_COLOURS[row.kind])
        label.set_fontweight("bold" if row.name == leaderboard.selected else "normal")
    axes.invert_yaxis()
    axes.set_xlim(-2, 102)
    axes.grid(axis="x", color="#dddddd")
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(left=False)
    n = rows[0].average["test"].n
    axes.set_xlabel(f"score in percent, test split, {n} items, {leaderboard.dtype}")
    confidence = f"{100 * leaderboard.confidence:g} %"
    title = f"Average over the suites (tick) with its {confidence} interval (band), and each suite (mark)"
    axes.set_title(title, loc="left", fontsize=11)
    figure.legend(loc="outside lower center", ncols=min(len(leaderboard.suites), 5), frameon=False)
    buffer = io.BytesIO()
    # Without the library's version in the file, the same leaderboard gives the same bytes.
    figure.savefig(buffer, format="png", dpi=dots_per_inch, metadata={"Software": None})
    return buffer.getvalue()
