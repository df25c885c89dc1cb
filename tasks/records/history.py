"""What happened to a registered version: when, at whose word, and why. Kept as one tag of the version, as YAML."""

import getpass
import os
import socket
import time
from collections.abc import Iterator, Mapping
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

TAG_HISTORY = "rammerge.history"

What = Literal["promoted", "rolled back", "asked", "approved", "refused", "timed out"]

# A tag of MLflow's holds 100,000 characters. A version that is moved more often than this forgets the first moves.
_MOST = 50


def this_user() -> str:
    """Return who runs this process, and where."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):  # a container whose user has no name
        name = f"uid {os.getuid()}"
    return f"{name}@{socket.gethostname()}"


class Reason(BaseModel):
    """Who wants something, and why.

    Attributes:
        by: a person, or a run.
        because: in their own words; empty if they gave no reason.
    """

    model_config = ConfigDict(frozen=True)

    by: str = Field(default_factory=this_user)
    because: str = ""


class Event(Reason):
    """Something that happened to a version.

    Attributes:
        what: a word for it.
        when: local time with its offset.
        instead_of: of a promotion, the champion before it, if there was one.
        difference: of a promotion, how the version differs from that champion, one sentence each.
        run: of a promotion, the MLflow run whose leaderboard has the version's scores.
    """

    what: What
    when: str = Field(default_factory=lambda: time.strftime("%Y-%m-%d %H:%M:%S %z"))
    instead_of: int | None = None
    difference: tuple[str, ...] = ()
    run: str = ""

    @property
    def sentence(self) -> str:
        """What happened, in one line."""
        return f"{self.what} on {self.when} by {self.by}: {self.because or 'no reason given'}"


def read_history(tags: Mapping[str, str]) -> list[Event]:
    """Return what happened to the version with these tags, oldest first; what cannot be read is left out."""
    return list(_events(tags.get(TAG_HISTORY, "")))


def with_event(tags: Mapping[str, str], event: Event) -> dict[str, str]:
    """Return the tag that a version with these tags gets when `event` happens."""
    events = [*read_history(tags), event][-_MOST:]
    said = [each.model_dump(mode="json", exclude_defaults=True) | {"when": each.when} for each in events]
    return {TAG_HISTORY: yaml.safe_dump(said, sort_keys=False, allow_unicode=True, width=1000)}


def _events(text: str) -> Iterator[Event]:
    try:
        found = yaml.safe_load(text) or []
    except yaml.YAMLError:  # somebody edited the tag
        return
    for each in found if isinstance(found, list) else []:
        try:
            yield Event.model_validate(each)
        except ValidationError:
            continue
