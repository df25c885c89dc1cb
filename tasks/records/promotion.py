"""Which version of a registered model serves.

`champion` is the version that serves, and `previous` the one that served before. Aliases change under one lock.
"""

import time
from typing import Literal

from pydantic import BaseModel, ConfigDict

from rammerge.errors import InputError
from rammerge.system.locks import locked
from tasks.records.aliases import CHALLENGER, CHAMPION, PREVIOUS, Move, move_aliases, read_aliases
from tasks.records.connection import client, lock_file
from tasks.records.registry import Release, get_release, require_intact, require_model
from tasks.records.trouble import explained

TAG_ROLLED_BACK = "rammerge.rolled_back"


class Promotion(BaseModel):
    """A change of the champion, or the reason why there was none."""

    model_config = ConfigDict(frozen=True)

    name: str
    champion: int | None
    previous: int | None
    changed: bool
    sentence: str


@explained()
def promote(
    name: str, version: int, *, by_hand: bool = False, instead_of: int | Literal["anyone"] | None = "anyone"
) -> Promotion:
    """Make `version` the champion. The present champion becomes the previous one.

    A version that was rolled back is promoted again only by a person (`by_hand`), so that a scheduled run of the same
    recipe does not undo the rollback.

    Args:
        name: registered model.
        version: the version that is to serve.
        by_hand: whether a person decided this.
        instead_of: the version that must be champion until now (None: no version), because the gates compared with it.

    Raises:
        InputError: the model or version does not exist, or its files are missing or damaged.
    """
    mlflow = client(write=True)
    with locked(lock_file("aliases")):
        release = get_release(name, version)
        aliases = read_aliases(mlflow.get_registered_model(name))
        champion, previous = aliases.get(CHAMPION), aliases.get(PREVIOUS)
        refusal = _refusal(release, champion, by_hand=by_hand, instead_of=instead_of)
        if refusal:
            return Promotion(name=name, champion=champion, previous=previous, changed=False, sentence=refusal)
        caveat = require_intact(release)
        moved = {CHAMPION: version, PREVIOUS: champion or previous}
        if aliases.get(CHALLENGER) == version:
            moved[CHALLENGER] = None
        move_aliases(mlflow, name, Move(aliases=moved, tags={version: {TAG_ROLLED_BACK: None}}), seen=aliases)
    sentence = f"{name} version {version} is champion now" + (f", version {champion} previous" if champion else "")
    return Promotion(
        name=name, champion=version, previous=champion or previous, changed=True, sentence=sentence + caveat
    )


def _refusal(
    release: Release, champion: int | None, *, by_hand: bool, instead_of: int | Literal["anyone"] | None
) -> str | None:
    """Return why the champion stays, or None if `release` may take its place."""
    name, version = release.name, release.version
    if champion == version:
        return f"{name} version {version} is champion already"
    if release.tags.get(TAG_ROLLED_BACK) and not by_hand:
        return f"{name} version {version} was rolled back; `rammerge promote {name} {version}` brings it back"
    if instead_of not in (champion, "anyone"):
        compared = f"version {instead_of}" if instead_of else "no champion"
        now = f"version {champion} is champion" if champion else "none serves"
        return (
            f"{name} version {version} is not promoted: it was compared with {compared}, but {now} now; "
            "run the recipe again"
        )
    return None


@explained()
def rollback(name: str) -> Promotion:
    """Swap champion and previous.

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
        caveat = require_intact(get_release(name, previous))
        now = time.strftime("%Y-%m-%dT%H:%M:%S%z")
        tags: dict[int, dict[str, str | None]] = {champion: {TAG_ROLLED_BACK: now}, previous: {TAG_ROLLED_BACK: None}}
        move_aliases(mlflow, name, Move(aliases={CHAMPION: previous, PREVIOUS: champion}, tags=tags), seen=aliases)
    sentence = f"{name} version {previous} is champion again; version {champion} is previous"
    return Promotion(name=name, champion=previous, previous=champion, changed=True, sentence=sentence + caveat)
