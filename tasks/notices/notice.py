"""What people are told: one happening."""

import time

from pydantic import BaseModel, ConfigDict, Field

from rammerge.recipe import Happening


class Notice(BaseModel):
    """A happening, as it is sent to a webhook.

    Attributes:
        schema_version: 1; raised when a field changes its meaning or goes.
        event: what happened.
        at: when, in UTC.
        recipe: name of the recipe; empty where nobody ran one.
        model: registered model.
        version: that it is about, if it is about one.
        sentence: what happened, for people.
        run: the address of the run in Prefect, if there is one.
        report: where the report of the run is, if there is one.
    """

    model_config = ConfigDict(frozen=True)

    schema_version: int = 1
    event: Happening
    at: str = Field(default_factory=lambda: time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()))
    recipe: str = ""
    model: str
    version: int | None = None
    sentence: str
    run: str = ""
    report: str = ""

    @property
    def subject(self) -> str:
        """A title for people."""
        return f"{self.model}: {self.event}"

    @property
    def text(self) -> str:
        """The happening for people, with its links."""
        links = [f"{what}: {where}" for what, where in (("run", self.run), ("report", self.report)) if where]
        return "\n".join([self.sentence, *links])
