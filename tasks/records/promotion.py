"""Which version of a registered model serves.

`champion` is the version that serves, and `previous` the one that served before. Aliases change under one lock, here
and nowhere else: a version that is to serve has all its files verified, and is compared with the present champion by
what both scored. Who moved it, when and why is written beside the aliases, in the same move.
"""

import time
from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict

from rammerge.errors import InputError
from rammerge.system.locks import locked
from tasks.records.aliases import CHALLENGER, CHAMPION, PREVIOUS, Move, move_aliases, read_aliases
from tasks.records.connection import client, lock_file
from tasks.records.differences import Differences, differences
from tasks.records.history import Event, Reason, read_history, with_event
from tasks.records.registry import TAG_GATES, TAG_RUN, Release, get_release, require_intact, require_model
from tasks.records.trouble import explained

TAG_ROLLED_BACK = "rammerge.rolled_back"
# Set while a person is asked whether the version may serve (tasks.records.approval).
TAG_QUESTION = "rammerge.question"


class Promotion(BaseModel):
    """A change of the champion, or the reason why there was none.

    Attributes:
        name: registered model.
        champion: the version that serves now.
        previous: the version that served before.
        changed: whether an alias moved, or a question was closed.
        sentence: what came of it.
        difference: how the new champion differs from the one before, one sentence each.
        cautions: what speaks against the new champion, one sentence each.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    champion: int | None
    previous: int | None
    changed: bool
    sentence: str
    difference: tuple[str, ...] = ()
    cautions: tuple[str, ...] = ()


@explained()
def promote(
    name: str,
    version: int,
    *,
    reason: Reason | None = None,
    by_hand: bool = False,
    instead_of: int | Literal["anyone"] | None = "anyone",
    answers: bool = False,
) -> Promotion:
    """Make `version` the champion. The present champion becomes the previous one.

    A version that was rolled back, or that a person refused, is promoted again only by a person (`by_hand`), so that a
    scheduled run of the same recipe does not undo that.

    Args:
        name: registered model.
        version: the version that is to serve.
        reason: who wants it, and why; default: the user of this process, without a reason.
        by_hand: whether a person decided this.
        instead_of: the version that must be champion until now (None: no version), because the gates compared with it.
        answers: whether this is the answer to a question, which must still be open.

    Raises:
        InputError: the model or version does not exist, or its files are missing or damaged.
    """
    mlflow = client(write=True)
    with locked(lock_file("aliases")):
        release = get_release(name, version)
        aliases = read_aliases(mlflow.get_registered_model(name))
        refusal = _refusal(release, aliases.get(CHAMPION), by_hand=by_hand, instead_of=instead_of, answers=answers)
        if refusal:
            return _unmoved(name, aliases, refusal)
        caveat = require_intact(release)
        champion = get_release(name, aliases[CHAMPION]) if CHAMPION in aliases else None
        between = differences(champion, release) if champion else None
        move = _to(release, aliases, reason, between)
        move_aliases(mlflow, name, move, seen=aliases)
    return _done(release, move, between, caveat)


def _to(release: Release, aliases: Mapping[str, int], reason: Reason | None, between: Differences | None) -> Move:
    """Return the move that makes `release` the champion."""
    champion, said = aliases.get(CHAMPION), between.sentences if between else ()
    moved = {CHAMPION: release.version, PREVIOUS: champion or aliases.get(PREVIOUS)}
    if aliases.get(CHALLENGER) == release.version:
        moved[CHALLENGER] = None
    ended: dict[str, str | None] = {tag: None for tag in (TAG_ROLLED_BACK, TAG_QUESTION) if tag in release.tags}
    told = with_event(release.tags, _promoted(release, reason, instead_of=champion, difference=said))
    return Move(aliases=moved, tags={release.version: {**ended, **told}})


def _done(release: Release, move: Move, between: Differences | None, caveat: str) -> Promotion:
    """Return what came of a move that made `release` the champion; `between` is None if there was none before."""
    before = move.aliases[PREVIOUS]
    instead = f", version {before} previous" if between else ""
    return Promotion(
        name=release.name,
        champion=release.version,
        previous=before,
        changed=True,
        sentence=f"{release.name} version {release.version} is champion now{instead}{caveat}",
        difference=between.sentences if between else (),
        cautions=_cautions(release, between),
    )


def _unmoved(name: str, aliases: Mapping[str, int], sentence: str) -> Promotion:
    champion, previous = aliases.get(CHAMPION), aliases.get(PREVIOUS)
    return Promotion(name=name, champion=champion, previous=previous, changed=False, sentence=sentence)


def _promoted(
    release: Release, reason: Reason | None, *, instead_of: int | None, difference: tuple[str, ...] = ()
) -> Event:
    by = (reason or Reason()).model_dump()
    run = release.tags.get(TAG_RUN, "")
    return Event(what="promoted", **by, instead_of=instead_of, difference=difference, run=run)


def _cautions(release: Release, between: Differences | None) -> tuple[str, ...]:
    """Return what speaks against a version that was made the champion."""
    said = []
    verdict, _, refusals = release.tags.get(TAG_GATES, "").partition(": ")
    if verdict == "refused":
        said.append(f"the gates refused version {release.version}: {refusals}")
    if between is None:
        return tuple(said)
    if between.average is not None and between.average.high < 0:
        said.append(f"version {release.version} scored worse than the champion before it")
    if between.problem is not None:
        said.append(between.problem)
    return tuple(said)


def why_not(name: str, version: int, instead_of: int | None) -> str | None:
    """Return why a run would not make `version` the champion instead of `instead_of`; None if it would."""
    release = get_release(name, version)
    champion = read_aliases(client().get_registered_model(name)).get(CHAMPION)
    return _refusal(release, champion, by_hand=False, instead_of=instead_of, answers=False)


def _refusal(
    release: Release,
    champion: int | None,
    *,
    by_hand: bool,
    instead_of: int | Literal["anyone"] | None,
    answers: bool,
) -> str | None:
    """Return why the champion stays, or None if `release` may take its place."""
    shown = f"{release.name} version {release.version}"
    last = next(reversed(read_history(release.tags)), None)
    again = f"`rammerge promote {release.name} {release.version}` brings it back"
    if champion == release.version:
        return f"{shown} is champion already"
    if answers and TAG_QUESTION not in release.tags:
        return f"nobody is asked about {shown} any more: {last.sentence if last else 'the question was withdrawn'}"
    if release.tags.get(TAG_ROLLED_BACK) and not by_hand:
        return f"{shown} was rolled back; {again}"
    if last is not None and last.what == "refused" and not by_hand:
        return f"{shown} was {last.sentence}; {again}"
    if instead_of not in (champion, "anyone"):
        compared = f"version {instead_of}" if instead_of else "no champion"
        now = f"version {champion} is champion" if champion else "none serves"
        return f"{shown} is not promoted: it was compared with {compared}, but {now} now; run the recipe again"
    return None


@explained()
def rollback(name: str, *, reason: Reason | None = None) -> Promotion:
    """Swap champion and previous.

    Args:
        name: registered model.
        reason: who wants it, and why; default: the user of this process, without a reason.

    Raises:
        InputError: the model does not exist, has no previous champion, or the files are missing or damaged.
    """
    mlflow = client(write=True)
    with locked(lock_file("aliases")):
        require_model(mlflow, name)
        aliases = read_aliases(mlflow.get_registered_model(name))
        champion, previous = aliases.get(CHAMPION), aliases.get(PREVIOUS)
        if champion is None or previous is None or champion == previous:
            raise InputError(f"{name} has no previous champion to go back to; see `rammerge releases {name}`")
        back, gone = get_release(name, previous), get_release(name, champion)
        caveat = require_intact(back)
        tags: dict[int, dict[str, str | None]] = {
            champion: {
                TAG_ROLLED_BACK: time.strftime("%Y-%m-%dT%H:%M:%S%z"),
                **with_event(gone.tags, Event(what="rolled back", **(reason or Reason()).model_dump())),
            },
            previous: {
                TAG_ROLLED_BACK: None,
                **with_event(back.tags, _promoted(back, reason, instead_of=champion)),
            },
        }
        move_aliases(mlflow, name, Move(aliases={CHAMPION: previous, PREVIOUS: champion}, tags=tags), seen=aliases)
    sentence = f"{name} version {previous} is champion again; version {champion} is previous"
    return Promotion(name=name, champion=previous, previous=champion, changed=True, sentence=sentence + caveat)
