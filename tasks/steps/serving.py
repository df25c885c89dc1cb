"""Evaluate a model that a server runs, which a recipe names to measure merges against."""

import json
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from evaluation.runners.pool import Worker
from rammerge import store
from rammerge.recipe import Yardstick
from rammerge.system.atomic import write_json
from rammerge.system.home import home
from tasks.runtime.models import process_beside
from tasks.runtime.progress import progress
from tasks.runtime.step import step
from tasks.steps.conditions import SuiteRef
from tasks.steps.evaluating import Scores, write_scores

_SUITE_VERSION = 1


class Server(BaseModel):
    """A model on a server.

    Attributes:
        url, model, concurrency, retries, timeout: how it is asked, as `evaluation.backends.served.Endpoint` has them.
        key: the environment variable that holds its key; empty for none.
        as_of: the recipe's word for when it was asked.
        said: what the server says of the model.
        away: whether the server is not there, and `said` is what it said before.
    """

    model_config = ConfigDict(frozen=True)

    url: str
    model: str
    concurrency: int
    retries: int
    timeout: float
    key: str = ""
    as_of: str | None = None
    said: dict[str, Any] = {}
    away: bool = False

    @classmethod
    def of(cls, written: Yardstick) -> "Server":
        """Return the server of a recipe's yardstick; what it says is not known yet."""
        said = written.model_dump(include=set(cls.model_fields) - {"key"})
        return cls(**said, key=written.key or "")

    @property
    def endpoint(self) -> dict[str, Any]:
        """The fields of `evaluation.backends.served.Endpoint`."""
        return self.model_dump(exclude={"as_of", "said", "away"})

    @property
    def identity(self) -> dict[str, Any]:
        """Which model it is, as far as that can be known; how patiently it is asked does not count."""
        return self.model_dump(include={"url", "model", "as_of", "said"})

    def remember(self) -> None:
        """Keep what the server says, for a run in which it is not there."""
        write_json(self._memory, self.said)

    def recalled(self) -> "Server | None":
        """Return the server with what it said last, if it has been there."""
        try:
            said = json.loads(self._memory.read_text("utf-8"))
        except (OSError, ValueError):
            return None
        return self.model_copy(update={"said": said, "away": True})

    @property
    def _memory(self) -> Path:
        asked = store.key_of("server", 0, {"url": self.url, "model": self.model, "as_of": self.as_of})
        return home() / "servers" / f"{asked}.json"

    @property
    def provenance(self) -> str:
        """What is known of the model, for tags and parameters."""
        words = [f"{self.model} at {self.url}", *([f"as of {self.as_of}"] if self.as_of else [])]
        return " ".join([*words, *(f"{key}={value}" for key, value in sorted(self.said.items()) if key != "id")])


@step("evaluate-served", version=1, run_name="evaluate {name}", result=Scores, ignore=["name"])
def evaluate_served(
    out: Path, name: str, server: Server, suites: Sequence[SuiteRef], limit: int | None, lm_eval: str
) -> None:
    """Ask the model on the server every suite; a suite that it was asked before is not asked again.

    Args:
        out: written: `scores.json`, which names the store's entries, one a suite.
        name: what the model is to the recipe.
        server: the model.
        suites: what to ask.
        limit: the number of items of each task.
        lm_eval: the version of lm-eval.
    """
    report, entries = progress(), {}
    with process_beside() as process:
        for number, suite in enumerate(suites):
            report(number / len(suites), suite.name)
            inputs = {"server": server.identity, "suite": suite.identity, "limit": limit, "lm_eval": lm_eval}
            ask = partial(_ask, process=process, server=server, suite=suite, limit=limit)
            entries[suite.name] = store.materialise("suite", store.key_of("served", _SUITE_VERSION, inputs), ask)
    write_scores(out, entries)


def _ask(out: Path, *, process: Worker, server: Server, suite: SuiteRef, limit: int | None) -> None:
    asked = {"suite": str(suite.path), "suite_digest": suite.digest, "limit": limit}
    key = os.environ.get(server.key)
    process.ask("evaluate_served", server=server.endpoint, key=key, **asked, out=str(out))
