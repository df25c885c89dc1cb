"""The parts of a recipe that say how models are evaluated, and what a variant must show."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from rammerge.recipe.section import Dtype, Section

MAX_BATCH = 65536


class Evaluation(Section):
    """How models are evaluated. A variant is chosen on the validation split and reported on the test split."""

    suites: list[str] = Field(min_length=1, description="Bundled suites, or directories (relative to the recipe file).")
    dtype: Dtype = Field(
        default="float32", description="Every model is loaded in this dtype, so that scores can be compared."
    )
    backend: Literal["transformers", "vllm"] = Field(
        default="transformers", description="What runs the models; `vllm` starts a server of it for each model."
    )
    batch_size: Annotated[int, Field(ge=1, le=MAX_BATCH)] | Literal["auto"] = Field(
        default=100,
        description="Prompts at a time, the same for all models, because it can change the last bit of a score; "
        "`auto`: for each suite as many as fit into memory beside the base.",
    )
    router: bool = Field(
        default=False,
        description="Whether the leaderboard shows what keeping all agents would score: `router` asks the agent that "
        "is best in the domain that a question seems to be of, `oracle` the best agent for each item.",
    )
    trust_remote_code: bool = Field(
        default=False,
        description="Whether models may run the Python code that they bring, as you, without a sandbox; those from a "
        "hub must then be pinned by `revision` to a commit SHA.",
    )
    confidence: float = Field(default=0.95, gt=0.5, lt=1, description="Level of every interval.")
    limit: int | None = Field(
        default=None, ge=1, description="Number of items per suite and split, for a quick look; default: all."
    )

    @field_validator("batch_size", mode="before")
    @classmethod
    def _is_a_size(cls, size: Any) -> Any:
        if size != "auto" and not (type(size) is int and 1 <= size <= MAX_BATCH):
            raise ValueError(f"must be a whole number from 1 to {MAX_BATCH}, or auto")
        return size

    @model_validator(mode="after")
    def _is_run_by_transformers(self) -> "Evaluation":
        if self.trust_remote_code and self.backend != "transformers":
            raise ValueError(f"trust_remote_code does not go with the backend {self.backend}; remove one of them")
        return self

    @field_validator("suites")
    @classmethod
    def _no_suite_twice(cls, suites: list[str]) -> list[str]:
        if len(set(suites)) != len(suites):
            raise ValueError("a suite is listed twice; keep one")
        return suites


def read_evaluation(value: Any) -> Any:
    """Take the word `none` for no evaluation. An empty value is refused, because somebody may have forgotten it."""
    if value is None:
        raise ValueError("has no value; give the suites, or none to merge without an evaluation")
    # Nothing but this can make one without suites.
    return Evaluation.model_construct(suites=[]) if value == "none" else value


class WrittenGate(BaseModel):
    """A rule that the chosen variant must pass to be promoted. All other keys are the rule's own parameters."""

    model_config = ConfigDict(extra="allow", frozen=True)

    rule: str = Field(description="Name of the rule.")
