"""The aliases of a registered model's versions, moved together although MLflow moves one at a time.

What is to be changed is written down first, as a tag of the registered model, and removed last. Whoever reads
meanwhile, or after a kill, sees the aliases as they will be, and the next move finishes what the last one began.
"""

from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

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
    """

    model_config = ConfigDict(frozen=True)

    aliases: dict[str, int | None]
    tags: dict[int, dict[str, str | None]] = {}


def read_aliases(model: "RegisteredModel") -> dict[str, int]:
    """Return the version that each alias of `model` points to, a move that has begun being made."""
    pointed = {alias: int(version) for alias, version in model.aliases.items()} | _begun(model).aliases
    return {alias: version for alias, version in pointed.items() if version is not None}


def move_aliases(mlflow: "MlflowClient", name: str, move: Move) -> None:
    """Make `move`, after what a killed process has left of an earlier one."""
    finish_move(mlflow, name)
    mlflow.set_registered_model_tag(name, TAG_MOVING, move.model_dump_json())
    finish_move(mlflow, name)


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
