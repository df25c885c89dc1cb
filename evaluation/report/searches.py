"""The history of a search for people, as Markdown. Numbers are percent."""

from collections.abc import Iterator

from evaluation.report.words import line, plain
from evaluation.search.history import History, Trial

# Rows of the table; the data have every trial.
SHOWN = 20

NOT_FINAL = (
    "A candidate that was dropped has no final score: what is shown is its average on the items that it saw, without "
    "an interval, and not comparable with the averages of those that saw more. The winner and the runner-up are chosen "
    "on these validation items; what they are worth is their score on the test split, on the leaderboard."
)


def search_markdown(history: History) -> str:
    """Return what a search came to, and its best trials, as GitHub Markdown."""
    return "\n\n".join([*map(plain, outcome(history)), "\n".join(_table(history)), f"{NOT_FINAL}\n"])


def outcome(history: History) -> list[str]:
    """Return what a search came to, and why it is smaller than asked for, if it is, as sentences."""
    stopped = [f"It has fewer trials or comparisons than asked for: {history.stopped}."] if history.stopped else []
    return [f"{history.sentence}.", *stopped]


def standing(history: History, trial: Trial) -> str:
    """Return what became of a trial, in a few words."""
    if trial.number == history.best:
        return "winner"
    if trial.number == history.second:
        return "runner-up"
    return "last to be dropped" if trial.whole else "dropped"


def _table(history: History) -> Iterator[str]:
    ranked = history.ranked
    suites = list(ranked[0].suites)
    yield line(["trial", "candidate", "standing", "items seen", *suites, "average"])
    yield line(["---:", "---", "---", "---:", *("---:" for _ in (*suites, "average"))])
    for trial in ranked[:SHOWN]:
        scores = [f"{100 * score:.1f}" for score in (*trial.suites.values(), trial.average)]
        shown = scores if trial.whole else [f"*{score}*" for score in scores]
        yield line([str(trial.number), plain(trial.words), standing(history, trial), str(trial.items), *shown])
    if len(ranked) > SHOWN:
        yield line(["", f"{len(ranked) - SHOWN} more", "dropped", "", *("" for _ in (*suites, "average"))])
