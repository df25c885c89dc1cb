"""Printing results, and showing the steps of a run: live on a terminal, one line per step elsewhere."""

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from evaluation.runners.harness import Results
    from tasks.runtime.progress import Event

_PLAIN_EVERY_SECONDS = 15.0
_PLAIN_WIDTH = 140
_MARKS = {"done": "[green]✓[/]", "cached": "[cyan]=[/]", "failed": "[red]✗[/]", "skipped": "[dim]-[/]"}


def console() -> Console:
    """Return the console for results: as wide as the terminal, and wide enough for tables elsewhere."""
    terminal = Console()
    return terminal if terminal.is_terminal else Console(width=_PLAIN_WIDTH)


def print_scores(title: str, results: "Results") -> None:
    """Print a model's scores on suites and splits."""
    from evaluation.statistics import mean

    table = Table("suite", "split", "score", "95 % interval", "items", title=escape(title), title_justify="left")
    for (suite, split), result in results.items():
        estimate = mean(result.answered, clusters=result.grouping)
        interval = f"{100 * estimate.low:.1f} to {100 * estimate.high:.1f}"
        table.add_row(suite, split, f"{100 * estimate.value:.1f} %", interval, str(result.n))
    console().print(table)


@dataclass
class Steps:
    """Counts the steps by how they ended, and shows them. It is called from many threads."""

    console: Console
    live: "Progress | None"
    expected: int
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(("done", "cached", "failed", "skipped"), 0))
    _started: dict[str, float] = field(default_factory=dict)
    _shown: dict[str, float] = field(default_factory=dict)
    _bars: dict[str, "TaskID"] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, event: "Event") -> None:
        """Record an event and show it."""
        with self._lock:
            if event.state == "running":
                self._advance(event)
            else:
                self._end(event)

    def summary(self) -> str:
        """Return how the steps ended, in one line."""
        parts = [f"{count} {state}" for state, count in self.counts.items() if count]
        return f"{sum(self.counts.values())} steps: {', '.join(parts)}"

    def _advance(self, event: "Event") -> None:
        now = time.monotonic()
        self._started.setdefault(event.step, now)
        if self.live is not None:
            if event.step not in self._bars:
                self._bars[event.step] = self.live.add_task(event.step, total=None, detail="")
            fraction = None if event.fraction is None else round(100 * event.fraction)
            total = None if fraction is None else 100
            self.live.update(self._bars[event.step], completed=fraction, total=total, detail=event.detail)
        elif now - self._shown.setdefault(event.step, now) > _PLAIN_EVERY_SECONDS:
            self._shown[event.step] = now
            done = "" if event.fraction is None else f" {event.fraction:.0%}"
            self._line(f"  {event.step}: running{done} {event.detail}".rstrip())

    def _end(self, event: "Event") -> None:
        self.counts[event.state] += 1
        started = self._started.pop(event.step, None)
        if self.live is not None and event.step in self._bars:
            self.live.remove_task(self._bars.pop(event.step))
        ended = sum(self.counts.values())
        place = f"{ended}/{max(ended, self.expected)}"
        seconds = "" if started is None or event.state == "cached" else f"{time.monotonic() - started:7.1f} s"
        if self.live is not None:
            self.console.print(f"{_MARKS[event.state]} [dim]{place:>7}[/] {event.step:<40} {seconds}", highlight=False)
        else:
            self._line(f"{place:>7}  {event.step:<40} {event.state:<7}{seconds}".rstrip())

    def _line(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)


@contextmanager
def steps_display(expected: int) -> Iterator[Steps]:
    """While the context lasts, yield a listener that shows steps on stderr; `expected` is their number."""
    errors = Console(stderr=True)
    if not errors.is_terminal:
        yield Steps(errors, None, expected)
        return
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        TimeElapsedColumn(),
        TextColumn("[dim]{task.fields[detail]}"),
    )
    with Progress(*columns, console=errors, transient=True) as live:
        yield Steps(errors, live, expected)
