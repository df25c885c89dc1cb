"""Commands about the versions of a registered model: releases, promote, rollback, approve, refuse, push."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.preparing import prepare
from rammerge.cli.terminal import say
from rammerge.errors import RammergeError

if TYPE_CHECKING:
    from rich.table import Table

    from rammerge.recipe import Happening
    from tasks.records.differences import Differences
    from tasks.records.promotion import Promotion
    from tasks.records.registry import Release

Name = Annotated[str, typer.Argument(help="The registered model.", metavar="NAME")]
Because = Annotated[str, typer.Option(help="Why; it is kept with the version.", metavar="TEXT")]


def promote(
    name: Name,
    version: Annotated[int, typer.Argument(help="Version to serve.", metavar="VERSION")],
    because: Because = "",
) -> None:
    """Make a registered version the champion. The present champion becomes `previous`."""
    prepare()
    from tasks.records import promotion
    from tasks.records.history import Reason

    _report(promotion.promote(name, version, reason=Reason(because=because), by_hand=True), version, "promoted")


def rollback(name: Name, because: Because = "") -> None:
    """Make the previous champion the champion again."""
    prepare()
    from tasks.records import promotion
    from tasks.records.history import Reason

    moved = promotion.rollback(name, reason=Reason(because=because))
    _report(moved, moved.champion, "promoted")


Asked = Annotated[
    str, typer.Argument(help="A recipe, a registered model, or the id of a run in Prefect.", metavar="RECIPE|NAME|RUN")
]
Version = Annotated[int | None, typer.Option(help="Default: the newest version that waits.", metavar="VERSION")]
Reasons = Annotated[str, typer.Option(help="Why; it is kept with the version.", metavar="TEXT")]


def approve(asked: Asked, because: Reasons, version: Version = None) -> None:
    """Let a version serve that waits for approval; a run that is paused goes on."""
    _answer(asked, version, because, approve=True)


def refuse(asked: Asked, because: Reasons, version: Version = None) -> None:
    """Refuse a version that waits for approval; a run that is paused goes on, and ends as refused."""
    _answer(asked, version, because, approve=False)


def _answer(asked: str, version: int | None, because: str, *, approve: bool) -> None:
    prepare()
    from rammerge.recipe import load
    from tasks.records.approval import answer, find_question, find_question_of
    from tasks.records.history import Reason
    from tasks.records.pushing import push as push_version
    from tasks.records.registry import TAG_PUSH

    recipe = Path(asked)
    name = load(recipe).model_name if recipe.is_file() else asked
    release = find_question_of(asked) or find_question(name, version)
    moved = answer(release.name, release.version, approve=approve, reason=Reason(because=because))
    serves = moved.champion == release.version
    _report(moved, release.version, "promoted" if serves else "refused")
    if serves and moved.changed and TAG_PUSH in release.tags:
        try:
            print(push_version(release.name, release.version).sentence)
        except RammergeError as error:  # it serves all the same
            say(f"warning: it is not on the hub: {error}; `rammerge push {release.name}` pushes it")


def push(
    name: Name,
    version: Annotated[int | None, typer.Argument(help="Default: the champion.", metavar="[VERSION]")] = None,
    to: Annotated[
        str | None, typer.Option(help="Hub repository; default: the recipe's `registry.push`.", metavar="ORG/NAME")
    ] = None,
) -> None:
    """Push a version that serves, or has served, to a repository on the hub, which is made private if it is missing."""
    prepare()
    from tasks.records import pushing

    print(pushing.push(name, version, to).sentence)


def releases(
    name: Name,
    diff: Annotated[
        tuple[int, int] | None, typer.Option(help="Show how these two versions differ.", metavar="VERSION VERSION")
    ] = None,
) -> None:
    """List the registered versions of a model, newest first, and what happened to them."""
    prepare()
    from flows.cli.display import console
    from tasks.records.approval import Question
    from tasks.records.history import read_history
    from tasks.records.registry import get_release
    from tasks.records.registry import releases as list_releases

    if diff is not None:
        from tasks.records.differences import differences

        first, second = (get_release(name, version) for version in diff)
        _show_differences(name, diff, differences(first, second))
        return
    found = list_releases(name)
    console().print(_table(found))
    for release in found:
        for event in read_history(release.tags)[-1:]:
            print(f"version {release.version}: {event.sentence}")
        if question := Question.of(release):
            print(f"version {release.version} waits for approval until {question.deadline}: read {question.report}")


def _table(found: "Sequence[Release]") -> "Table":
    from rich.markup import escape
    from rich.table import Table

    from tasks.records.promotion import TAG_ROLLED_BACK
    from tasks.records.registry import TAG_GATES, TAG_VARIANT, TAG_WEIGHTS

    table = Table("version", "alias", "variant", "gates", "registered", "weights", box=None)
    table.add_column("path", overflow="fold")
    for release in found:
        tags = release.tags
        table.add_row(
            str(release.version),
            ", ".join(release.aliases) or ("rolled back" if TAG_ROLLED_BACK in tags else ""),
            tags.get(TAG_VARIANT, ""),
            tags.get(TAG_GATES, "").partition(":")[0],
            time.strftime("%Y-%m-%d %H:%M %z", time.localtime(release.created)),
            tags.get(TAG_WEIGHTS, "")[:12],
            escape(release.path),
        )
    return table


def _show_differences(name: str, versions: tuple[int, int], found: "Differences") -> None:
    from rich.markup import escape
    from rich.table import Table

    from flows.cli.display import console
    from tasks.records.differences import shown

    before, after = (f"version {version}" for version in versions)
    out = console()
    scores = Table("test items of", before, after, "difference", title=name, box=None)
    for scored in found.scores:
        estimates = (scored.before, scored.after, scored.difference)
        scores.add_row(scored.suite, *(shown(estimate) if estimate else "-" for estimate in estimates))
    if found.scores:
        out.print(scores)
        print(f"in brackets: {100 * found.confidence:g} % interval")
    if found.problem:
        print(found.problem)
    changes = Table("made of", before, after, box=None)
    for change in found.changes:
        changes.add_row(*map(escape, (change.what, change.before or "-", change.after or "-")))
    out.print(changes if found.changes else "both are made of the same")


def _report(moved: "Promotion", version: int | None, event: "Happening") -> None:
    """Print what came of it, how the champions differ, and what speaks against the new one; tell who wants to hear."""
    print(moved.sentence)
    for line in moved.difference:
        print(f"  {line}")
    for caution in moved.cautions:
        say(f"warning: {caution}")
    if version is not None and moved.changed:
        from flows.run.telling import tell_of_move

        for problem in tell_of_move(moved, version, event):
            say(f"warning: {problem}")
