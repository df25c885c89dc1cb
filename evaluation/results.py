"""What one model scored on one split of one suite, item by item, with everything that makes it comparable."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from evaluation.suites import Split


@dataclass(frozen=True)
class SuiteResult:
    """The scores in [0, 1] by sorted item id, and how they were made.

    Attributes:
        scores: by item; the mean where an item was answered several times.
        items_digest: covers the items' contents.
        seconds: wall time of this split alone, without loading the model.
        clusters: item id -> the cluster of related items that it belongs to, where the suite declares clusters.
        answers: item id -> the score of each answer, where the suite samples several.
        decoding: `greedy`, or how answers are sampled.
        few_shot: examples in the prompt, by task.
        chat_template: SHA-256 of the model's own template, where the suite's prompts are wrapped in it.
        sandbox: what kept the code that models wrote away from the machine, where a suite runs such code.
        tokens: tokens of the prompts and of the answers, if they were counted.
        peak_memory: of the process, or of its GPU, in bytes, since it began, if it was measured.
        backend: what ran the model: `transformers`, `vllm`, or `unknown` of a server.
    """

    suite: str
    suite_digest: str
    split: Split
    scores: Mapping[str, float]
    items_digest: str
    dtype: str
    device: str
    batch_size: int
    limit: int | None
    lm_eval_version: str
    transformers_version: str
    torch_version: str
    seconds: float
    model_digest: str | None = None
    clusters: Mapping[str, str] | None = None
    answers: Mapping[str, Sequence[float]] | None = None
    decoding: str = "greedy"
    few_shot: Mapping[str, int] = field(default_factory=dict)
    chat_template: str | None = None
    sandbox: str | None = None
    tokens: int | None = None
    peak_memory: int | None = None
    backend: str = "transformers"

    @property
    def n(self) -> int:
        """The number of items."""
        return len(self.scores)

    @property
    def mean(self) -> float:
        """The mean score, float64."""
        return math.fsum(self.scores.values()) / len(self.scores)

    @property
    def answered(self) -> list[float] | list[list[float]]:
        """The scores by item; where there are several answers to an item, those of each answer."""
        if self.answers is None:
            return list(self.scores.values())
        return [list(self.answers[item]) for item in self.scores]

    @property
    def grouping(self) -> list[str] | None:
        """The cluster of each item, in the order of the scores; None where items are independent."""
        return None if self.clusters is None else [self.clusters[item] for item in self.scores]

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object. It includes `n` and `mean` for readers."""
        return asdict(self) | {"scores": dict(self.scores), "n": self.n, "mean": self.mean}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "SuiteResult":
        """Return the result that `to_json` wrote."""
        fields = {name: value for name, value in content.items() if name not in ("n", "mean")}
        return cls(**fields | {"scores": dict(sorted(fields["scores"].items()))})
