"""What MLflow shows of a run: parameters, metrics and datasets."""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from evaluation.judging.leaderboard import Row
from rammerge.recipe import Recipe
from tasks.steps.conditions import SuiteRef
from tasks.steps.methods import MethodRef

if TYPE_CHECKING:
    from mlflow.entities import DatasetInput


def metrics_of(row: Row | None, seconds: Mapping[str, float]) -> dict[str, float]:
    """Return a model's scores and seconds, by the names that MLflow shows."""
    metrics = {f"seconds/{step}": value for step, value in seconds.items()}
    if row is None:
        return metrics
    for split, suites in row.suites.items():
        average = row.average[split]
        metrics |= {f"{split}/{suite}": estimate.value for suite, estimate in suites.items()}
        metrics[f"{split}/average"] = average.value
        metrics |= {f"{split}/average_low": average.low, f"{split}/average_high": average.high}
    return metrics


def evaluation_params(recipe: Recipe) -> dict[str, Any]:
    """Return how a recipe evaluates, as MLflow's parameters."""
    if not recipe.evaluates:
        return {"evaluation": "none"}
    return {f"evaluation.{name}": value for name, value in recipe.evaluation.model_dump().items()}


def method_params(method: MethodRef) -> dict[str, Any]:
    """Return what a variant was merged with, as MLflow's parameters."""
    settled = {f"method.{name}": value for name, value in method.params.items()}
    weights = {f"weight.{agent}": weight for agent, weight in method.weights.items()}
    rest = {name: value for name, value in (("tensors", method.tensors), ("then", method.then)) if value}
    return {"method": method.name, "preset": method.preset, **settled, **weights, **rest}


def shown(value: Any) -> str:
    """Return a parameter's value as text."""
    return json.dumps(value) if isinstance(value, list | dict) else str(value)


def dataset_of(suite: SuiteRef) -> "DatasetInput":
    """Return a suite as MLflow's dataset that a run was evaluated on."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    source = json.dumps({"suite": suite.name, "digest": suite.digest})
    dataset = Dataset(name=suite.name, digest=suite.digest[:36], source_type="rammerge-suite", source=source)
    return DatasetInput(dataset, [InputTag("mlflow.data.context", "evaluation")])
