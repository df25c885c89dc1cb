"""All models on every suite: selected on validation, reported on test, differences with intervals.

The leaderboard keeps the scores of every item, so that a later question (another gate, another pair of models) is
answered without evaluating anything again.
"""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from evaluation.judging.comparable import Asked, IncomparableError
from evaluation.judging.comparing import (
    Comparison,
    ItemScores,
    ShownComparison,
    compare_models,
)
from evaluation.statistics import Estimate
from evaluation.suites import Split
from rammerge.errors import InputError, closest

# An ensemble keeps all agents; a bound is what no ensemble of them can surpass.
YardstickKind = Literal["yardstick", "ensemble", "bound"]
Kind = Literal["base", "agent", "champion", "variant"] | YardstickKind

# The row of a champion that is none of the run's own models.
CHAMPION = "champion"
# The file in which a step writes it, and a run keeps it.
BOARD = "leaderboard.json"

TIES = "ties go to the variant whose worst suite is better, then to the first name in the alphabet"


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Row(_Part):
    """One model's estimates, by split and suite, and its average over the suites, by split."""

    name: str
    kind: Kind
    method: str | None
    suites: dict[Split, dict[str, Estimate]]
    average: dict[Split, Estimate]


class Champion(_Part):
    """The release that serves now, which a new one has to match.

    Attributes:
        name: the release, such as `zoo version 3`.
        row: its row, which is a variant's if that variant was promoted by an earlier run; None if it has no scores.
        problem: why it has no scores, as a sentence without its full stop.
    """

    name: str
    row: str | None = None
    problem: str | None = None


class Yardstick(_Part):
    """What variants are measured against, and what is never selected: its kind, and a sentence that says what it is."""

    kind: YardstickKind
    note: str


class Leaderboard(_Part):
    """Rows in order: base, agents, champion, yardsticks, variants from best to worst on validation.

    There is no row of the champion if none serves, or if it is one of the variants. `best_agent` and `reference` (the
    best variant of `reference_method`, if there is one) were chosen on validation, as `selected` was; `comparisons` are
    on test.

    Attributes:
        selected: the variant with the best validation average; for ties, see TIES.
        asked: what the items are, and how they were asked, by suite and split.
        scores: what each model scored on the items, in the order of ids, by split and suite.
        clusters: the cluster of each item, by split and suite that declares clusters.
        templates: digest of each model's chat template, by suite that uses it; a server does not tell its own.
        yardsticks: by the names of their rows.
    """

    rows: tuple[Row, ...]
    selected: str
    best_agent: str
    reference: str | None
    reference_method: str
    comparisons: tuple[ShownComparison, ...]
    champion: Champion | None = None
    confidence: float
    dtype: str
    lm_eval_version: str
    asked: dict[str, dict[Split, Asked]]
    scores: dict[str, dict[Split, dict[str, ItemScores]]]
    clusters: dict[Split, dict[str, list[str]]]
    templates: dict[str, dict[str, str]]
    yardsticks: dict[str, Yardstick] = {}

    @property
    def suites(self) -> tuple[str, ...]:
        """The suites' names, in the order in which they were asked for."""
        return tuple(self.rows[0].suites["test"])

    def row(self, name: str) -> Row:
        """Return the row of the model `name`; raise InputError naming the nearest if there is none."""
        for row in self.rows:
            if row.name == name:
                return row
        names = [row.name for row in self.rows]
        raise InputError(f"the leaderboard has no model '{name}'{closest(name, names)}; it has {', '.join(names)}")

    def names(self, kind: Kind) -> list[str]:
        """Return the names of the models of one kind, in the order of the rows."""
        return [row.name for row in self.rows if row.kind == kind]

    def compare(self, ours: str, theirs: str, split: Split = "test") -> Comparison:
        """Compare any two models item by item.

        Raises:
            IncomparableError: they were asked in different words.
            InputError: one is not on the leaderboard.
        """
        our_scores, their_scores = (self.scores[self.row(name).name][split] for name in (ours, theirs))
        for suite in self.suites:
            templates = {self.templates[name].get(suite) for name in (ours, theirs)} - {None}
            if len(templates) > 1:
                raise IncomparableError(
                    f"{ours} and {theirs} were asked with different chat templates on {suite}; give both the same "
                    f"template, or set apply_chat_template: false in the suite"
                )
        return compare_models(ours, theirs, split, our_scores, their_scores, self.clusters[split], self.confidence)

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object from which `from_json` makes the same leaderboard."""
        return self.model_dump(mode="json")

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Leaderboard":
        """Return the leaderboard that `to_json` wrote."""
        return cls.model_validate(content)
