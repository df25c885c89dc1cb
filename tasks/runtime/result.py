"""What a step returns, and what a value counts as in a cache key."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict

from rammerge import store


class Result(BaseModel):
    """The result of a step. It is small, so that Prefect can keep it; the content is in the store.

    Attributes:
        path: what the step made.
        digest: of its content.
        seconds: how long the step took when it was done, if that was noted; `step` sets it.
    """

    model_config = ConfigDict(frozen=True)

    path: Path
    digest: str
    seconds: float | None = None

    @classmethod
    def read(cls, entry: store.Entry) -> Self:
        """Return the result that the step wrote. Subclasses with more fields than the entry override this."""
        return cls(path=entry.path, digest=entry.digest)

    def holds(self) -> bool:
        """Tell whether the result is still true outside the store: a registered version may be gone, for example."""
        return True

    @property
    def identity(self) -> Any:
        """JSON that stands for this result in the cache keys of later steps."""
        return self.digest

    def found(self) -> Self:
        """Return the result as it is when an earlier run did the work."""
        return self

    def has_made(self, _key: str) -> bool:
        """Tell whether the step with this result also made the output, with that key, of a later step."""
        return False


def identity(value: Any) -> Any:
    """Return what `value` counts as in a cache key: JSON."""
    if hasattr(value, "identity"):
        return value.identity
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, Mapping):
        return [[key, identity(item)] for key, item in value.items()]  # the order of agents counts
    if isinstance(value, list | tuple):
        return [identity(item) for item in value]
    return value
