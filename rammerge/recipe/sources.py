"""The parts of a recipe that say where checkpoints come from."""

import re
from collections.abc import Mapping
from typing import Annotated, TypeVar

from pydantic import Field, model_validator

from rammerge.errors import InputError
from rammerge.recipe.section import Section, short_form

Model = TypeVar("Model")

SOURCE = "Directory (relative to the recipe file) or hub id `org/name`."
REVISION = "Branch, tag or commit SHA on the hub; a SHA pins it forever."


class Source(Section):
    """Where a checkpoint comes from. A plain string is the source."""

    source: str = Field(min_length=1, description=SOURCE)
    revision: str | None = Field(default=None, description=REVISION)


class Agent(Section):
    """One checkpoint, or several of one domain that are averaged while they are read. A plain string is the source."""

    source: str | None = Field(default=None, min_length=1, description=SOURCE)
    revision: str | None = Field(default=None, description=REVISION)
    group: list[Annotated[Source, short_form("source", Source)]] | None = Field(
        default=None, min_length=2, description="Of an agent, instead of `source`: checkpoints to average."
    )

    @model_validator(mode="after")
    def _is_one_or_several(self) -> "Agent":
        if (self.source is None) == (self.group is None) or (self.group and self.revision):
            raise ValueError("needs either `source` or `group`, and a `revision` of `source` only")
        return self

    @property
    def sources(self) -> list[Source]:
        """The checkpoint, or the checkpoints of the group."""
        return self.group or [Source(source=self.source or "", revision=self.revision)]


def is_commit(revision: str | None) -> bool:
    """Tell whether a revision is the whole SHA of a commit, which nobody can move."""
    return revision is not None and re.fullmatch(r"[0-9a-f]{40}", revision) is not None


def member_names(agent: str, count: int) -> list[str]:
    """Return the names of the checkpoints of an agent that is a group."""
    return [f"{agent}.{number}" for number in range(1, count + 1)]


def name_members(
    agents: Mapping[str, Model | list[Model]],
) -> tuple[dict[str, Model], dict[str, list[str]]]:
    """Return the checkpoints of agents by name, and agent -> names of its members, for those that are several.

    Raises:
        InputError: the name of a member is another agent's.
    """
    members: dict[str, Model] = {}
    groups: dict[str, list[str]] = {}
    for name, given in agents.items():
        if not isinstance(given, list):
            members[name] = given
            continue
        groups[name] = member_names(name, len(given))
        if taken := sorted(agents.keys() & set(groups[name])):
            raise InputError(f"the name '{taken[0]}' of a member of '{name}' is an agent's; rename that agent")
        members |= zip(groups[name], given, strict=True)
    return members, groups
