"""Moving the aliases of a registered model.

`champion` is the version in use, and `previous` the version before it. Aliases change under one lock, in an order in
which there is a champion even after a kill.
"""

import time
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from rammerge.errors import InputError
from rammerge.system.locks import locked
from tasks.records.connection import client, lock_file
from tasks.records.registry import (
    CHALLENGER,
    CHAMPION,
    PREVIOUS,
    get_release,
    require_intact,
    require_model,
)

TAG_ROLLED_BACK = "rammerge.rolled_back"


class Promotion(BaseModel):
    """A change of the champion, or the reason why there was none."""

    model_config = ConfigDict(frozen=True)

    name: str
    champion: int | None
    previous: int | None
    changed: bool
    sentence: str


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
    mlflow = client()
    with locked(lock_file("aliases")):
        release = get_release(name, version)
        aliases = mlflow.get_registered_model(name).aliases
        champion, previous = _version(aliases, CHAMPION), _version(aliases, PREVIOUS)
        if champion == version:
            return Promotion(
                name=name,
                champion=version,
                previous=previous,
                changed=False,
                sentence=f"{name} version {version} is champion already",
            )
        if release.tags.get(TAG_ROLLED_BACK) and not by_hand:
            sentence = f"{name} version {version} was rolled back; `rammerge promote {name} {version}` brings it back"
            return Promotion(name=name, champion=champion, previous=previous, changed=False, sentence=sentence)
        if instead_of not in (champion, "anyone"):
            sentence = (
                f"{name} version {version} is not promoted: it was compared with "
                f"{f'version {instead_of}' if instead_of else 'no champion'}, but version {champion} is champion now; "
                "run the recipe again"
            )
            return Promotion(name=name, champion=champion, previous=previous, changed=False, sentence=sentence)
        require_intact(release)
        if champion is not None:
            mlflow.set_registered_model_alias(name, PREVIOUS, str(champion))
        mlflow.set_registered_model_alias(name, CHAMPION, str(version))
        if _version(aliases, CHALLENGER) == version:
            mlflow.delete_registered_model_alias(name, CHALLENGER)
        if release.tags.get(TAG_ROLLED_BACK):
            mlflow.delete_model_version_tag(name, str(version), TAG_ROLLED_BACK)
        sentence = f"{name} version {version} is champion now" + (f", version {champion} previous" if champion else "")
        return Promotion(name=name, champion=version, previous=champion or previous, changed=True, sentence=sentence)


def rollback(name: str) -> Promotion:
    """Swap champion and previous.

    Raises:
        InputError: the model does not exist, has no previous champion, or the files are missing or damaged.
    """
    mlflow = client()
    with locked(lock_file("aliases")):
        require_model(mlflow, name)
        aliases = mlflow.get_registered_model(name).aliases
        champion, previous = _version(aliases, CHAMPION), _version(aliases, PREVIOUS)
        if champion is None or previous is None or champion == previous:
            raise InputError(f"{name} has no previous champion to go back to; see `rammerge releases {name}`")
        require_intact(get_release(name, previous))
        mlflow.set_model_version_tag(name, str(champion), TAG_ROLLED_BACK, time.strftime("%Y-%m-%dT%H:%M:%S%z"))
        mlflow.set_registered_model_alias(name, CHAMPION, str(previous))
        mlflow.set_registered_model_alias(name, PREVIOUS, str(champion))
        sentence = f"{name} version {previous} is champion again; version {champion} is previous"
        return Promotion(name=name, champion=previous, previous=champion, changed=True, sentence=sentence)


def _version(aliases: Mapping[str, Any], alias: str) -> int | None:
    return int(aliases[alias]) if alias in aliases else None
