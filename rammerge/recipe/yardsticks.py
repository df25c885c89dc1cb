"""The part of a recipe that names models to measure merges against: checkpoints, and models on servers."""

from typing import Any

from pydantic import Field, field_validator, model_validator

from rammerge.recipe.section import Section
from rammerge.recipe.sources import REVISION, SOURCE, Source
from rammerge.system.redaction import names_a_secret, without_credentials

# The rows that `evaluation.router` adds to the leaderboard.
ROUTED = (ROUTER, ORACLE) = ("router", "oracle")

_SERVED = ("model", "key", "concurrency", "retries", "timeout", "as_of")


class Yardstick(Section):
    """A model that is evaluated beside the merges and never merged: a checkpoint, or a model on a server.

    A plain string is the source of a checkpoint.
    """

    source: str | None = Field(default=None, min_length=1, description=SOURCE)
    revision: str | None = Field(default=None, description=REVISION)
    url: str | None = Field(
        default=None,
        description="In place of `source`: the address of a server that speaks OpenAI's protocol, such as "
        "`http://127.0.0.1:8000/v1`.",
    )
    model: str | None = Field(default=None, min_length=1, description="The server's name for the model.")
    key: str | None = Field(
        default=None,
        description="Name of the environment variable that holds the server's key; default: no key is sent.",
    )
    concurrency: int = Field(default=8, ge=1, le=4096, description="Questions to the server at a time.")
    retries: int = Field(default=5, ge=0, le=1000, description="How often an unanswered question is asked again.")
    timeout: float = Field(default=300.0, gt=0, description="Seconds that an answer may take.")
    as_of: str | None = Field(
        default=None,
        min_length=1,
        description="Any text, such as a date: change it to have the model on the server asked anew.",
    )

    @field_validator("url")
    @classmethod
    def _is_an_address_without_a_secret(cls, url: str | None) -> str | None:
        if url is None:
            return None
        if not url.startswith(("http://", "https://")):
            raise ValueError("a server's address must begin with http:// or https://")
        if without_credentials(url) != url or "?" in url or "#" in url:
            raise ValueError("the address holds more than the server and a path; name the key's variable with `key`")
        return url

    @field_validator("key")
    @classmethod
    def _is_a_variable(cls, key: str | None) -> str | None:
        # The value is not repeated: it may be the key itself.
        if key is not None and not names_a_secret(key):
            raise ValueError(
                "`key` is the name of an environment variable with KEY or TOKEN in it, such as OPENAI_API_KEY, and "
                "never the key itself"
            )
        return key

    @model_validator(mode="before")
    @classmethod
    def _is_one_of_two(cls, given: Any) -> Any:
        if not isinstance(given, dict) or given.keys() - cls.model_fields.keys():
            return given  # refused for what is wrong with it
        if ("source" in given) == ("url" in given):
            raise ValueError("needs either `source` or `url`")
        wrong = ("revision",) if "url" in given else _SERVED
        if found := [key for key in wrong if key in given]:
            raise ValueError(f"`{found[0]}` does not go with `{'url' if 'url' in given else 'source'}`; remove it")
        if "url" in given and "model" not in given:
            raise ValueError("a server needs `model`, its name for the model")
        return given

    @property
    def checkpoint(self) -> Source | None:
        """The checkpoint, or None for a model on a server."""
        return None if self.source is None else Source(source=self.source, revision=self.revision)
