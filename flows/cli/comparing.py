"""The command that compares two runs: `rammerge compare`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from rammerge.errors import InputError
from rammerge.system.home import home

if TYPE_CHECKING:
    from evaluation.report.page import Page

_RUN = "A recipe or its name, for its last run, or the id of an MLflow run. Default of :MODEL: the selected one."


class _Side(NamedTuple):
    """One side of a comparison: what the run is called, what its report says, and the model."""

    run: str
    page: "Page"
    model: str


def compare(
    first: Annotated[str, typer.Argument(help=_RUN, metavar="RUN[:MODEL]")],
    second: Annotated[str, typer.Argument(help="The run to compare with the first.", metavar="RUN[:MODEL]")],
    out: Annotated[Path | None, typer.Option(help="Write the page to this file.", metavar="FILE.html")] = None,
) -> None:
    """Compare two runs, or two models of one, on the items that both were asked: the second minus the first."""
    from evaluation.report.differences import suites_to_rich
    from evaluation.report.page import facing, to_page
    from flows.cli.display import console
    from rammerge.system.atomic import write_text
    from tasks.runtime.environment import activate, quiet

    activate()
    quiet()
    theirs, ours = _side(first), _side(second)
    page = facing(ours.page, ours.model, theirs.page, theirs.model, run=ours.run, other=theirs.run)
    console().print(suites_to_rich(page.board))
    if out is not None:
        write_text(out, to_page(page))
        print(out)


def _side(asked: str) -> _Side:
    run, model = asked, ""
    found = _page(run)
    if found is None and ":" in asked:
        run, _, model = asked.rpartition(":")
        found = _page(run)
    if found is None:
        raise InputError(
            f"'{run}' is no recipe, no recipe's name with a finished run under {home()}, and no run in MLflow; run the "
            f"recipe first, or see the ids in `rammerge ui`"
        )
    name, page = found
    return _Side(name, page, model or page.board.selected)


def _page(run: str) -> "tuple[str, Page] | None":
    """Return what a run is called, and what its report says; None if there is no such run."""
    from flows.run.outcome import Outcome
    from rammerge.recipe import load
    from tasks.records.found import find_page, read_page
    from tasks.records.reporting import CONTENT

    name = load(Path(run)).name if Path(run).is_file() else run
    last = Outcome.last(name)
    if last is not None and last.report is None:
        raise InputError(f"the last run of {name} has no report, because nothing was evaluated; give it suites")
    if last is not None and last.report is not None and last.leaderboard_file is not None:
        files = last.report.with_name(CONTENT), last.leaderboard_file
        if all(file.is_file() for file in files):
            content, board = (json.loads(file.read_text("utf-8")) for file in files)
            return name, read_page(content, board, name)
    return find_page(name)
