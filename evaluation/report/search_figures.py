"""Figures of a search: its history, and the trade-off between the average and the worst suite.

All points are scores on the items of the first look, because all candidates saw these.
"""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from evaluation.report.figures import to_png
from evaluation.search.history import History, Trial

# Tol's bright scheme, which color-blind readers can tell apart.
_COLORS = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#bbbbbb")


def history_png(history: History) -> bytes:
    """Return the figure of every trial's average by its number, and of the best so far, as a PNG image."""
    figure, axes = _figure("trial", "average, percent")
    numbers = [trial.number for trial in history.trials]
    values = [100 * trial.first["average"] for trial in history.trials]
    _draw_methods(axes, history, numbers, values)
    best = [100 * value for value in history.best_so_far]
    axes.step(numbers, best, where="post", color="black", label="best so far")
    return _png(figure)


def pareto_png(history: History) -> bytes:
    """Return the figure of average and worst suite, and of the candidates that none dominates, as a PNG image."""
    figure, axes = _figure("average, percent", "worst suite, percent")
    _draw_methods(axes, history, *_averages_and_worst(history.trials))
    axes.plot(*_averages_and_worst(history.trade_offs), color="black", label="best trade-offs")
    return _png(figure)


def _averages_and_worst(trials: Sequence[Trial]) -> tuple[list[float], list[float]]:
    return [100 * trial.first["average"] for trial in trials], [100 * trial.first["worst"] for trial in trials]


def _figure(x: str, y: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(9, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(color="#dddddd")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _draw_methods(axes: Axes, history: History, x: Sequence[float], y: Sequence[float]) -> None:
    """Draw the trials, a color a method; the winner and the runner-up have a ring."""
    for index, method in enumerate(dict.fromkeys(trial.method for trial in history.trials)):
        mine = [place for place, trial in enumerate(history.trials) if trial.method == method]
        color = _COLORS[index % len(_COLORS)]
        axes.plot([x[place] for place in mine], [y[place] for place in mine], "o", color=color, label=method)
    chosen = [place for place, trial in enumerate(history.trials) if trial.number in (history.best, history.second)]
    axes.plot(
        [x[place] for place in chosen],
        [y[place] for place in chosen],
        "o",
        color="black",
        markersize=13,
        markerfacecolor="none",
        label="winner, runner-up",
    )


def _png(figure: Figure) -> bytes:
    figure.suptitle("Validation items of the first look, which all candidates saw", x=0.01, ha="left", fontsize=11)
    figure.legend(loc="outside lower center", ncols=4, frameon=False)
    return to_png(figure)
