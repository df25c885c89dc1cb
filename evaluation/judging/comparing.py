"""Differences of two models on the same items, and the family of them that a leaderboard shows."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict

from evaluation.statistics import Difference, holm, macro_difference, paired_difference, resampling_seed
from evaluation.suites import Split

Role = Literal["base", "best_agent", "champion", "reference", "yardstick"]
# Of each item, or of each answer to each item.
ItemScores = list[float] | list[list[float]]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Comparison(_Part):
    """`ours` minus `theirs` on the same items of one split: on every suite, and averaged over the suites."""

    ours: str
    theirs: str
    split: Split
    suites: dict[str, Difference]
    average: Difference


class ShownComparison(_Part):
    """A comparison of the leaderboard's family: what the other model stands for, and its average's Holm-adjusted p."""

    role: Role
    comparison: Comparison
    holm_p: float


def compare_family(
    variants: Sequence[str],
    references: Sequence[tuple[Role, str]],
    scores: Mapping[str, Mapping[Split, Mapping[str, ItemScores]]],
    clusters: Mapping[str, Sequence[str]],
    confidence: float,
) -> tuple[ShownComparison, ...]:
    """Compare each variant with each reference on the test split, with p values adjusted for their number (Holm)."""
    found = [
        (
            role,
            compare_models(
                variant, other, "test", scores[variant]["test"], scores[other]["test"], clusters, confidence
            ),
        )
        for variant in variants
        for role, other in references
        if other != variant
    ]
    adjusted = holm([comparison.average.p_value for _, comparison in found])
    return tuple(
        ShownComparison(role=role, comparison=comparison, holm_p=p)
        for (role, comparison), p in zip(found, adjusted, strict=True)
    )


def reference_roles(
    base: str, best_agent: str, champion: str | None, reference: str | None, yardsticks: Iterable[str] = ()
) -> list[tuple[Role, str]]:
    """Return the models that variants are compared with, and what each stands for; None where there is none."""
    references: list[tuple[Role, str | None]] = [
        ("base", base),
        ("best_agent", best_agent),
        ("champion", champion),
        ("reference", reference),
        *(("yardstick", name) for name in yardsticks),
    ]
    return [(role, name) for role, name in references if name is not None]


def compare_models(
    ours: str,
    theirs: str,
    split: Split,
    our_scores: Mapping[str, ItemScores],
    their_scores: Mapping[str, ItemScores],
    clusters: Mapping[str, Sequence[str]],
    confidence: float,
) -> Comparison:
    """Compare two models item by item: on every suite of one split, and on average."""
    seed = resampling_seed(ours, theirs, split)
    suites = {
        suite: paired_difference(
            values, their_scores[suite], clusters=clusters.get(suite), confidence=confidence, seed=seed
        )
        for suite, values in our_scores.items()
    }
    average = macro_difference(
        list(suites.values()),
        list(our_scores.values()),
        [their_scores[suite] for suite in suites],
        clusters=[clusters.get(suite) for suite in suites],
        seed=seed,
    )
    return Comparison(ours=ours, theirs=theirs, split=split, suites=suites, average=average)
