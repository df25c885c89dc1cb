"""What scores depend on besides the model: the suites, and how they are asked."""

from collections.abc import Mapping
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from evaluation.backends.greedy import ANSWERING
from evaluation.backends.serving import vllm_version
from evaluation.suites import Suite
from rammerge.recipe import Recipe


class SuiteRef(BaseModel):
    """A suite that has been opened and checked.

    Attributes:
        name: its name in results and reports.
        path: its directory.
        digest: digest of its items and its scoring.
        sandbox: what runs the programs that models write, where it asks for programs.
        domain: what it measures, in a word.
        chat: whether its prompts are turns of a chat.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    path: Path
    digest: str
    sandbox: str | None = None
    domain: str = ""
    chat: bool = False

    @property
    def identity(self) -> list[str]:
        """Name, content and sandbox; the path does not count."""
        return [self.name, self.digest, *([] if self.sandbox is None else [self.sandbox])]

    @classmethod
    def of(cls, suite: Suite) -> "SuiteRef":
        """Return what the steps need to know of an opened suite."""
        return cls(
            name=suite.name,
            path=suite.path,
            digest=suite.digest,
            sandbox=suite.sandbox,
            domain=suite.domain,
            chat=suite.apply_chat_template,
        )


class Conditions(BaseModel):
    """Everything that scores depend on, except the model and the suite.

    Attributes:
        batch_size: prompts at a time; None if each suite has its own.
        batches: prompts at a time by suite, where they are not the same for all.
        backend: what runs the models.
        vllm: its version, if it does.
        answering: the version of how models are asked that transformers loads.
        trust_remote_code: whether models may run the code that they bring.
        device: the kind, `cpu` or `cuda`: scores of one kind can be compared.
        devices: where models run; this is no part of the identity.
    """

    model_config = ConfigDict(frozen=True)

    dtype: str
    batch_size: int | None
    limit: int | None
    device: str
    lm_eval: str
    transformers: str
    torch: str
    batches: dict[str, int] = {}
    backend: str = "transformers"
    vllm: str | None = None
    answering: int = 1
    trust_remote_code: bool = False
    devices: tuple[str, ...] = ("cpu",)

    @property
    def identity(self) -> dict[str, Any]:
        """All fields that say something, but for where models run."""
        return self.model_dump(exclude_defaults=True, exclude={"devices"})

    @classmethod
    def of(cls, recipe: Recipe, batches: Mapping[str, int] = {}) -> "Conditions":
        """Return the conditions of a recipe on this installation, with batches by suite where they were chosen."""
        asked = recipe.evaluation
        return cls(
            dtype=asked.dtype,
            batch_size=None if asked.batch_size == "auto" else asked.batch_size,
            limit=asked.limit,
            device=recipe.compute.kind_of_evaluation,
            devices=recipe.compute.evaluate_on,
            lm_eval=installed("lm_eval"),
            transformers=installed("transformers"),
            torch=installed("torch"),
            batches=dict(batches),
            backend=asked.backend,
            vllm=vllm_version() if asked.backend == "vllm" else None,
            answering=ANSWERING if asked.backend == "transformers" else 1,
            trust_remote_code=asked.trust_remote_code,
        )

    def of_suite(self, suite: SuiteRef) -> "Conditions":
        """Return the conditions of one suite."""
        size = self.batches.get(suite.name, self.batch_size)
        return self.model_copy(update={"batch_size": size, "batches": {}})
