"""All models on every suite: selected on validation, reported on test, differences with intervals.

The leaderboard keeps the scores of every item, so that a later question (another gate, another pair of models) is
answered without evaluating anything again.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from evaluation.judging.comparable import Asked, IncomparableError, Results, refuse_incomparable
from evaluation.judging.comparing import (
    Comparison,
    ItemScores,
    ShownComparison,
    compare_family,
    compare_models,
    reference_roles,
)
from evaluation.results import SuiteResult
from evaluation.statistics import Estimate, macro_average, mean, resampling_seed
from evaluation.suites import SPLITS, Split
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

    def select(self) -> str:
        """Return the variant with the best validation average (for ties, see TIES)."""
        return self.selected

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


def build_leaderboard(
    results: Results,
    *,
    base: str,
    agents: Sequence[str],
    variants: Mapping[str, str],
    champion: Champion | None = None,
    yardsticks: Mapping[str, Yardstick] = {},
    reference_method: str = "task_arithmetic",
    confidence: float = 0.95,
) -> Leaderboard:
    """Build the leaderboard of `results` by model, suite and split; `variants` gives each variant's method.

    A `champion` whose row is none of the other models' gets a row of its own.

    Raises:
        InputError: a model lacks a result, or results cannot be compared because items, a suite's content, the dtype or
            the version of lm-eval differ.
    """
    if not agents or not variants:
        raise InputError("a leaderboard needs at least one agent and one variant besides the base")
    kinds = _kinds(base, agents, champion.row if champion else None, yardsticks, variants)
    refuse_incomparable(results, list(kinds))
    scores = {name: {split: _scores(results[name], split) for split in SPLITS} for name in kinds}
    clusters = {split: _clusters(results[base], split) for split in SPLITS}
    rows = {
        name: _row(name, kind, variants.get(name), scores[name], clusters, confidence) for name, kind in kinds.items()
    }
    ranked = sorted((rows[name] for name in variants), key=_rank)
    best_agent = min((rows[name] for name in agents), key=_rank).name
    reference = next((row.name for row in ranked if row.method == reference_method), None)
    compared = [name for name, yardstick in yardsticks.items() if yardstick.kind != "bound"]
    references = reference_roles(base, best_agent, champion.row if champion else None, reference, compared)
    some = next(iter(results[base].values()))["test"]
    return Leaderboard(
        rows=(*(row for row in rows.values() if row.kind != "variant"), *ranked),
        selected=ranked[0].name,
        best_agent=best_agent,
        reference=reference,
        reference_method=reference_method,
        comparisons=compare_family([row.name for row in ranked], references, scores, clusters["test"], confidence),
        champion=champion,
        confidence=confidence,
        dtype=some.dtype,
        lm_eval_version=some.lm_eval_version,
        asked={
            suite: {split: Asked.of(result) for split, result in by_split.items()}
            for suite, by_split in results[base].items()
        },
        scores=scores,
        clusters=clusters,
        templates={name: _templates(results[name]) for name in kinds},
        yardsticks=dict(yardsticks),
    )


def _kinds(
    base: str,
    agents: Sequence[str],
    champion: str | None,
    yardsticks: Mapping[str, Yardstick],
    variants: Iterable[str],
) -> dict[str, Kind]:
    """Return the kind of each row, in the leaderboard's order: a champion has its own only if it is no other model."""
    kinds: dict[str, Kind] = {base: "base", **dict.fromkeys(agents, "agent")}
    if champion is not None and champion not in {*kinds, *variants}:
        kinds[champion] = "champion"
    kinds |= {name: yardstick.kind for name, yardstick in yardsticks.items()}
    return kinds | dict.fromkeys(variants, "variant")


def _scores(results: Mapping[str, Mapping[Split, SuiteResult]], split: Split) -> dict[str, ItemScores]:
    return {suite: by_split[split].answered for suite, by_split in results.items()}


def _clusters(results: Mapping[str, Mapping[Split, SuiteResult]], split: Split) -> dict[str, list[str]]:
    """Return the clusters of the items by suite, where there are any.

    Raises:
        InputError: a suite has one cluster only, from which no interval can be made.
    """
    found = {suite: by_split[split].grouping for suite, by_split in results.items()}
    for suite, clusters in found.items():
        if clusters is not None and len(set(clusters)) == 1:
            raise InputError(
                f"the items of {suite} ({split}) are all of the cluster '{clusters[0]}', which says nothing about "
                f"others; add items of other clusters"
            )
    return {suite: clusters for suite, clusters in found.items() if clusters is not None}


def _templates(results: Mapping[str, Mapping[Split, SuiteResult]]) -> dict[str, str]:
    found = {suite: by_split["test"].chat_template for suite, by_split in results.items()}
    return {suite: template for suite, template in found.items() if template is not None}


def _row(
    name: str,
    kind: Kind,
    method: str | None,
    scores: Mapping[Split, Mapping[str, ItemScores]],
    clusters: Mapping[Split, Mapping[str, Sequence[str]]],
    confidence: float,
) -> Row:
    suites = {
        split: {
            suite: mean(
                values,
                clusters=clusters[split].get(suite),
                confidence=confidence,
                seed=resampling_seed(name, suite, split),
            )
            for suite, values in by_suite.items()
        }
        for split, by_suite in scores.items()
    }
    average = {split: macro_average(list(estimates.values())) for split, estimates in suites.items()}
    return Row(name=name, kind=kind, method=method, suites=suites, average=average)


def _rank(row: Row) -> tuple[float, float, str]:
    """Order by validation, best first. Rounding keeps the last bits of a sum from deciding what is a tie (TIES)."""
    worst = min(estimate.value for estimate in row.suites["validation"].values())
    return (-round(row.average["validation"].value, 12), -round(worst, 12), row.name)
