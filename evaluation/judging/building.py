"""Make the leaderboard from the results of all models: choose on validation, compare on test."""

from collections.abc import Collection, Mapping, Sequence

from evaluation.judging.comparable import Asked, Results, refuse_incomparable
from evaluation.judging.comparing import ItemScores, compare_family, reference_roles
from evaluation.judging.leaderboard import Champion, Kind, Leaderboard, Row, Yardstick
from evaluation.results import SuiteResult
from evaluation.statistics import macro_average, mean, resampling_seed
from evaluation.suites import SPLITS, Split
from rammerge.errors import InputError


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
    kinds = _kinds(base, agents, champion.row if champion else None, yardsticks, variants)
    refuse_incomparable(results, list(kinds))
    scores = {name: {split: _scores(results[name], split) for split in SPLITS} for name in kinds}
    clusters = {split: _clusters(results[base], split) for split in SPLITS}
    rows = {name: _row(name, kinds[name], variants.get(name), scores[name], clusters, confidence) for name in kinds}
    ranked = sorted((rows[name] for name in variants), key=_rank)
    best_agent = min((rows[name] for name in agents), key=_rank).name
    reference = next((row.name for row in ranked if row.method == reference_method), None)
    beside = [name for name, yardstick in yardsticks.items() if yardstick.kind != "bound"]
    compared = reference_roles(base, best_agent, champion.row if champion else None, reference, beside)
    some = next(iter(results[base].values()))["test"]
    return Leaderboard(
        rows=(*(row for row in rows.values() if row.kind != "variant"), *ranked),
        selected=ranked[0].name,
        best_agent=best_agent,
        reference=reference,
        reference_method=reference_method,
        comparisons=compare_family([row.name for row in ranked], compared, scores, clusters["test"], confidence),
        champion=champion,
        confidence=confidence,
        dtype=some.dtype,
        lm_eval_version=some.lm_eval_version,
        asked=_asked(results[base]),
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
    variants: Collection[str],
) -> dict[str, Kind]:
    """Return the kind of each row, in the leaderboard's order: a champion has its own only if it is no other model."""
    if not agents or not variants:
        raise InputError("a leaderboard needs at least one agent and one variant besides the base")
    kinds: dict[str, Kind] = {base: "base", **dict.fromkeys(agents, "agent")}
    if champion is not None and champion not in {*kinds, *variants}:
        kinds[champion] = "champion"
    kinds |= {name: yardstick.kind for name, yardstick in yardsticks.items()}
    return kinds | dict.fromkeys(variants, "variant")


def _asked(results: Mapping[str, Mapping[Split, SuiteResult]]) -> dict[str, dict[Split, Asked]]:
    return {
        suite: {split: Asked.of(result) for split, result in by_split.items()} for suite, by_split in results.items()
    }


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
