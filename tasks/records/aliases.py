"""The aliases of a registered model's versions, moved together although MLflow moves one at a time.

What is to be changed is written down first, as a tag of the registered model, and removed last. Whoever reads
meanwhile, or after a kill, sees the aliases as they will be, and the next move finishes what the last one began.

A lock keeps apart the moves of one machine. MLflow has none for those of several, and makes every change without a
condition. So a move looks whether it still starts from what was decided on, and in the end whether it came about.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING
from uuid import uuid4

from pydantic import BaseModel, ConfigDict, Field

from rammerge.errors import RammergeError

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import RegisteredModel

CHAMPION, CHALLENGER, PREVIOUS = "champion", "challenger", "previous"
TAG_MOVING = "rammerge.moving"


class Move(BaseModel):
    """A change of aliases, and of one tag of versions. Making it twice is making it once.

    Attributes:
        aliases: the version that each alias is to point to; None for an alias that is to go.
        tags: key and value for each version; None for a tag that is to go.
        by: tells this move from one that another machine makes at the same time.
    """

    model_config = ConfigDict(frozen=True)

    aliases: dict[str, int | None]
    tags: dict[int, dict[str, str | None]] = {}
    by: str = Field(default_factory=lambda: uuid4().hex)


def read_aliases(model: "RegisteredModel") -> dict[str, int]:
    """Return the version that each alias of `model` points to, a move that has begun being made."""
    return _changed(_pointed(model), _begun(model))


def move_aliases(mlflow: "MlflowClient", name: str, move: Move, *, seen: Mapping[str, int]) -> None:
    """Make `move`, after what a killed process has left of an earlier one.

    Args:
        mlflow: the client.
        name: registered model.
        move: what to change.
        seen: the aliases from which `move` was decided, as `read_aliases` returned them.

    Raises:
        RammergeError: another machine changed the aliases at the same time; the message says what holds now.
    """
    finish_move(mlflow, name)
    mlflow.set_registered_model_tag(name, TAG_MOVING, move.model_dump_json())
    model = mlflow.get_registered_model(name)
    if _begun(model).by != move.by:
        raise _overtaken(model)
    if _pointed(model) != seen:
        mlflow.delete_registered_model_tag(name, TAG_MOVING)
        raise _overtaken(mlflow.get_registered_model(name))
    finish_move(mlflow, name)
    model = mlflow.get_registered_model(name)
    if read_aliases(model) != _changed(seen, move):
        raise _overtaken(model)


def finish_move(mlflow: "MlflowClient", name: str) -> None:
    """Make the move that has begun, if there is one."""
    model = mlflow.get_registered_model(name)
    if TAG_MOVING not in model.tags:
        return
    move = _begun(model)
    for alias, version in move.aliases.items():
        if version is None:
            mlflow.delete_registered_model_alias(name, alias)
        else:
            mlflow.set_registered_model_alias(name, alias, str(version))
    for version, tags in move.tags.items():
        for key, value in tags.items():
            if value is None:
                mlflow.delete_model_version_tag(name, str(version), key)
            else:
                mlflow.set_model_version_tag(name, str(version), key, value)
    mlflow.delete_registered_model_tag(name, TAG_MOVING)


def _begun(model: "RegisteredModel") -> Move:
    return Move.model_validate_json(model.tags.get(TAG_MOVING, '{"aliases": {}}'))


def _pointed(model: "RegisteredModel") -> dict[str, int]:
    return {alias: int(version) for alias, version in model.aliases.items()}


def _changed(pointed: Mapping[str, int], move: Move) -> dict[str, int]:
    moved = {**pointed, **move.aliases}
    return {alias: version for alias, version in moved.items() if version is not None}


def _overtaken(model: "RegisteredModel") -> RammergeError:
    champion = read_aliases(model).get(CHAMPION)
    serves = f"version {champion} serves now" if champion else "no version serves"
    return RammergeError(
        f"the aliases of {model.name} were changed by somebody else at the same time, and {serves}; "
        f"see `rammerge releases {model.name}`, and run the command again if that is not what you want"
    )
