"""The page of two models of two runs."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from evaluation.judging.facing import face
from evaluation.report.page.content import Page
from evaluation.report.page.flips import Flip, find_flips, read_samples


def facing(ours: Page, model: str, theirs: Page, rival: str, *, run: str, other: str) -> Page:
    """Return the page of one model of a run against a model of another run.

    It shows what both wrote if the files are still on this machine.

    Args:
        ours: the page of the run whose base and agents are shown.
        model: an agent or a variant of it.
        theirs: the page of the other run, which may be the same.
        rival: any model of it.
        run: what our run is called.
        other: what their run is called.

    Raises:
        InputError: see `evaluation.judging.facing.face`.
    """
    called = f"{rival} of {other}"
    board = face(ours.board, model, theirs.board, rival, called=called)
    both = [(ours, model, model), (theirs, rival, called)]
    made = [replace(made, name=name) for page, of, name in both for made in page.variants if made.name == of]
    costs = [replace(cost, name=name) for page, of, name in both for cost in page.costs if cost.name == of]
    facts = dict(ours.facts)
    facts |= {f"{other}: {key}": value for key, value in theirs.facts.items() if ours.facts.get(key) != value}
    return replace(
        ours,
        title=f"{model} of {run} against {rival} of {other}",
        board=board,
        decision=None,
        variants=made,
        flips=list(_flips(ours, model, theirs, rival, called)),
        costs=costs,
        shared_seconds={},
        search=None,
        facts=facts,
    )


def _flips(ours: Page, model: str, theirs: Page, rival: str, called: str) -> Iterator[Flip]:
    """Yield the items that both answered differently, where the machine of this process has the answers of both."""
    for suite in ours.board.suites:
        files = [page.samples.get(name, {}).get(suite, "") for page, name in ((ours, model), (theirs, rival))]
        if all(Path(file).is_file() for file in files):
            yield from find_flips(suite, called, *map(read_samples, files))
