"""The figures of a soak."""

import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

_SIZES = ("store", "home", "mlflow", "prefect")


@dataclass(frozen=True)
class Run:
    """What came of one run.

    Attributes:
        night: its number.
        fault: what went wrong meanwhile.
        ended: how it ended, in words.
        again: whether the same recipe has to run again.
        seconds: from its start to the end of all that was started.
        said: its last line, if it did not come to its end.
        problems: what did not hold afterwards.
        versions: registered ones.
        champion: the version that serves.
        recorded: runs that MLflow has recorded to their end so far, with those whose records were pruned since.
        store: bytes of the store.
        home: bytes of the home.
        mlflow: resident bytes of MLflow's server.
        prefect: resident bytes of Prefect's server.
    """

    night: int
    fault: str
    ended: str
    again: bool
    seconds: float
    said: str
    problems: list[str]
    versions: int
    champion: int | None
    recorded: int
    store: int
    home: int
    mlflow: int
    prefect: int


def figures(runs: Sequence[Run]) -> dict[str, Any]:
    """Return what the runs came to, as JSON."""
    megabytes = {name: _course([getattr(run, name) / 1e6 for run in runs]) for name in _SIZES}
    champions = [run.champion for run in runs if run.champion is not None]
    return {
        "runs": len(runs),
        "nights": len({run.night for run in runs}),
        "ended": dict(Counter(f"{run.fault}: {run.ended}" for run in runs)),
        "problems": [f"run {number}: {problem}" for number, run in enumerate(runs) for problem in run.problems],
        "seconds": {"median": statistics.median(run.seconds for run in runs), "all": sum(run.seconds for run in runs)},
        "promotions": sum(new != old for old, new in zip([None, *champions], champions, strict=False)),
        "versions": max(run.versions for run in runs),
        "recorded": runs[-1].recorded,
        "megabytes": megabytes,
    }


def grown(summary: dict[str, Any]) -> list[str]:
    """Return which server's memory grew from the second quarter of the runs to the last by more than a quarter."""
    courses = {name: summary["megabytes"][name] for name in ("mlflow", "prefect")}
    return [
        f"the memory of {name} grew from {course['quarter 2']} to {course['quarter 4']} MB"
        for name, course in courses.items()
        if course.get("quarter 4", 0.0) > 1.25 * course.get("quarter 2", 0.0)
    ]


def _course(values: Sequence[float]) -> dict[str, float]:
    """Return the median of each quarter of the runs, and the most."""
    size = max(1, len(values) // 4)
    quarters = [statistics.median(values[start : start + size]) for start in range(0, 4 * size, size) if values[start:]]
    return {**{f"quarter {n}": round(value, 1) for n, value in enumerate(quarters, 1)}, "most": round(max(values), 1)}
