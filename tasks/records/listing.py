"""All that MLflow has of a kind. A call of MLflow's own returns one page of that."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run
    from mlflow.entities.model_registry import ModelVersion, RegisteredModel

_PAGE = 200


def every_model(mlflow: "MlflowClient") -> "list[RegisteredModel]":
    """Return the registered models."""
    return _every(lambda count, page: mlflow.search_registered_models(max_results=count, page_token=page))


def every_version(mlflow: "MlflowClient", which: str = "") -> "list[ModelVersion]":
    """Return the registered versions that a filter lets through."""
    return _every(lambda count, page: mlflow.search_model_versions(which, count, page_token=page))


def every_experiment(mlflow: "MlflowClient") -> list[str]:
    """Return the ids of the experiments, also of those that are marked as deleted."""
    from mlflow.entities import ViewType

    found = _every(lambda count, page: mlflow.search_experiments(ViewType.ALL, count, page_token=page))
    return [experiment.experiment_id for experiment in found]


def every_run(mlflow: "MlflowClient", experiments: Sequence[str], which: str, *, deleted: bool = False) -> "list[Run]":
    """Return the runs of experiments that a filter lets through, if wanted also those that are marked as `deleted`."""
    from mlflow.entities import ViewType

    view = ViewType.ALL if deleted else ViewType.ACTIVE_ONLY
    return _every(lambda count, page: mlflow.search_runs(list(experiments), which, view, count, page_token=page))


def _every(page: Callable[[int, Any], Sequence[Any]]) -> list[Any]:
    from mlflow.utils import get_results_from_paginated_fn

    found: list[Any] = get_results_from_paginated_fn(page, _PAGE)
    return found
