"""What the runs say in three sentences, for the page and for the README."""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from benchmarks.results.advising import judge
from benchmarks.results.analysis import Line, difference, tuned, untuned
from benchmarks.results.data import Run
from evaluation.statistics import Estimate
from rammerge.system.atomic import write_text

_MARKS = "<!-- results -->", "<!-- end of results -->"


def verdict(groups: Mapping[str, Sequence[Run]], plain: Mapping[str, Sequence[Line]]) -> str:
    """Return three sentences: which method wins where, RAM+ against task arithmetic, and whether it could be told.

    Args:
        groups: the runs of each regime.
        plain: each regime's lines, untuned, the best method first.
    """
    best = _listed(
        f"`{lines[0].name}` under `{group}` ({lines[0].score.value:.1f} %{_close(lines)})"
        for group, lines in plain.items()
    )
    against = _listed(
        f"{_points(difference([untuned(run) for run in runs], 'ram_plus', 'task_arithmetic'))} under `{group}`"
        for group, runs in groups.items()
    )
    return (
        f"Untuned, the best method on test is {best}.\nRAM+ (the paper's preset) minus task arithmetic at scale 1.0 is "
        f"{against}.\n{_told(groups)}"
    )


def write_readme(file: Path, sentences: str) -> None:
    """Put the sentences between the README's marks."""
    start, end = map(re.escape, _MARKS)
    text = file.read_text("utf-8")
    put = f"{_MARKS[0]}\n{sentences}\n{_MARKS[1]}"
    write_text(file, re.sub(f"{start}.*?{end}", lambda _: put, text, flags=re.DOTALL))


def _close(lines: Sequence[Line]) -> str:
    """Return how many methods cannot be told from the best."""
    close = sum(line.behind is not None and line.behind.high >= 0 for line in lines[1:])
    return f", not to be told from {close} other{'s' * (close > 1)}" if close else ""


def _told(groups: Mapping[str, Sequence[Run]]) -> str:
    runs = [run for found in groups.values() for run in found]
    choices = {
        group: [{**untuned(run), "search": tuned(run)["search"]} for run in found] for group, found in groups.items()
    }
    gains = _listed(
        f"{_points(difference(found, 'search', 'task_arithmetic'))} under `{group}`" for group, found in choices.items()
    )
    records = [record for record in (judge(runs, "seed"), judge(runs, "regime")) if record is not None]
    hits = [f"{each.hits} of {each.runs} runs of a {each.held_out} that it did not know" for each in records]
    advisor = f", and the advisor named a method within a point of the best in {_listed(hits)}" if hits else ""
    return f"A search on validation changes untuned task arithmetic by {gains}{advisor}."


def _points(found: Estimate) -> str:
    return f"{found.value:+.1f} points ({found.low:+.1f} to {found.high:+.1f})"


def _listed(parts: Iterable[str]) -> str:
    *first, last = parts
    return f"{', '.join(first)} and {last}" if first else last
