"""The parts of a recipe that say what may become of the chosen variant, and who hears of it."""

import re
from typing import Annotated, Literal

from pydantic import Field, StringConstraints, field_validator, model_validator

from rammerge.recipe.compute import Duration
from rammerge.recipe.section import Name, Section
from rammerge.system.redaction import names_a_secret, without_credentials

REPOSITORY_PATTERN = r"^[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*$"
BLOCK_PATTERN = r"^[a-z0-9-]+/[A-Za-z0-9._-]+$"

Happening = Literal["promoted", "refused", "failed", "regressed", "waiting"]


class Registry(Section):
    """Where the chosen variant is registered, and whether it becomes the champion when it passes every gate."""

    model: Name | None = Field(default=None, description="Registered model's name; default: the recipe's name.")
    promote: bool = Field(default=True, description="Move the alias `champion` when every gate passes.")
    approval: Literal["none", "required"] = Field(
        default="none", description="Whether a person is asked before the alias `champion` moves."
    )
    approval_timeout: Duration = Field(
        default="24h", description="How long the question stays open (`30m`, `12h`, `2d`); then nothing is promoted."
    )
    licences: Literal["warn", "refuse"] = Field(
        default="warn",
        description="What becomes of base and agents whose licences are known to be in the way of giving their merge "
        "away: a warning, or an error before any work.",
    )
    push: Annotated[str, StringConstraints(pattern=REPOSITORY_PATTERN)] | None = Field(
        default=None, description="Hub repository `org/name` that gets each new champion, private unless it exists."
    )

    @model_validator(mode="after")
    def _asks_about_a_promotion(self) -> "Registry":
        if self.approval == "required" and not self.promote:
            raise ValueError("`approval: required` asks about a promotion; remove `promote: false`, or the approval")
        return self


class Notify(Section):
    """Who hears of what became of a run: a webhook, or a notification block of Prefect's."""

    url: str | None = Field(
        default=None,
        description="A webhook: an address, or `$NAME` for one that is itself a secret, in the environment variable "
        "NAME.",
    )
    block: Annotated[str, StringConstraints(pattern=BLOCK_PATTERN)] | None = Field(
        default=None, description="In place of `url`: a notification block of Prefect's, such as `slack-webhook/mlops`."
    )
    events: list[Happening] = Field(
        default=["promoted", "refused", "failed", "regressed", "waiting"],
        min_length=1,
        description="What to tell: `promoted`, `refused`, `failed`, `regressed`, `waiting` (for approval).",
    )
    secret: str | None = Field(
        default=None,
        description="Name of the environment variable with the secret that signs what is sent to `url`.",
    )

    @field_validator("url")
    @classmethod
    def _is_an_address(cls, url: str | None) -> str | None:
        # The value is not repeated: it may be a secret.
        if url is None or (url.startswith("$") and names_a_secret(url[1:])):
            return url
        if url.startswith("$"):
            raise ValueError("the variable's name must have SECRET, TOKEN or KEY in it, such as $SLACK_SECRET_URL")
        if not re.match(r"https?://[^/\s]", url) or without_credentials(url) != url:
            raise ValueError("a webhook is an http:// or https:// address without a password, or $NAME of a variable")
        return url

    @field_validator("secret")
    @classmethod
    def _is_a_variable(cls, secret: str | None) -> str | None:
        if secret is not None and not names_a_secret(secret):
            raise ValueError(
                "`secret` is the name of an environment variable with SECRET, TOKEN or KEY in it, and never the secret "
                "itself"
            )
        return secret

    @model_validator(mode="after")
    def _is_one_of_two(self) -> "Notify":
        if (self.url is None) == (self.block is None):
            raise ValueError("needs either `url` or `block`")
        if self.block and self.secret:
            raise ValueError("`secret` signs what goes to a `url`; remove it")
        return self
