"""Results made up without a model: each item has a difficulty, and a model solves the items below its ability."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from evaluation.judging.building import build_leaderboard
from evaluation.judging.leaderboard import Leaderboard
from evaluation.results import SuiteResult
from evaluation.statistics import resampling_seed
from evaluation.suites import SPLITS, Split

SUITES = ("zoo_tool", "zoo_code")
SIZES: Mapping[Split, int] = {"validation": 40, "test": 60}
AGENTS = ("tool", "code")
VARIANTS = {"half": "task_arithmetic", "full": "task_arithmetic", "ram": "ram"}
ABILITIES: dict[str, Sequence[float]] = {
    "base": (0.2, 0.1),
    "tool": (0.9, 0.1),
    "code": (0.2, 0.95),
    "half": (0.7, 0.7),
    "full": (0.75, 0.8),
    "ram": (0.9, 0.9),
}

ModelResults = dict[str, dict[Split, SuiteResult]]


def result(suite: str, split: Split, scores: Iterable[float], **changes: Any) -> SuiteResult:
    fields: dict[str, Any] = {
        "suite": suite,
        "suite_digest": f"digest of {suite}",
        "split": split,
        "scores": {f"{split}-{index:03d}": float(score) for index, score in enumerate(scores)},
        "items_digest": f"items of {suite} {split}",
        "dtype": "float32",
        "device": "cpu",
        "batch_size": 100,
        "limit": None,
        "lm_eval_version": "0.4.13",
        "transformers_version": "5.17.0",
        "torch_version": "2.13.0",
        "seconds": 1.0,
    }
    return SuiteResult(**fields | changes)


def model_results(abilities: Sequence[float]) -> ModelResults:
    results: ModelResults = {}
    for suite, ability in zip(SUITES, abilities, strict=True):
        results[suite] = {}
        for split in SPLITS:
            difficulty = np.random.default_rng(resampling_seed(suite, split)).permutation(SIZES[split]) / SIZES[split]
            results[suite][split] = result(suite, split, difficulty < ability)
    return results


def all_results() -> dict[str, ModelResults]:
    return {name: model_results(abilities) for name, abilities in ABILITIES.items()}


def board(results: Mapping[str, ModelResults] | None = None, **options: Any) -> Leaderboard:
    return build_leaderboard(
        all_results() if results is None else results, base="base", agents=AGENTS, variants=VARIANTS, **options
    )
