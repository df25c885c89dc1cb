"""What a run's report said, found again in MLflow."""

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from evaluation.judging.leaderboard import BOARD, Leaderboard
from evaluation.report.page import Page
from rammerge import store
from rammerge.errors import InputError
from tasks.records.connection import client
from tasks.records.log import TAG_PIPELINE
from tasks.records.reporting import CONTENT
from tasks.records.trouble import explained

_RUN_ID = re.compile(r"[0-9a-f]{32}")
_ID_DIGITS = 8


@explained()
def find_page(run: str) -> tuple[str, Page] | None:
    """Return what to call a run of the pipeline, and what its report said; None if MLflow knows no such run.

    Args:
        run: an id of MLflow's, or the name of a recipe, which means its last run.

    Raises:
        InputError: the run has no report.
    """
    found = _run(run)
    if found is None:
        return None
    from mlflow.artifacts import load_dict
    from mlflow.exceptions import MlflowException

    identity = found.info.run_id
    try:
        content, board = (load_dict(f"{found.info.artifact_uri}/{file}") for file in (CONTENT, BOARD))
    except MlflowException as error:
        raise InputError(
            f"the MLflow run {identity} has no {CONTENT}, because nothing was evaluated in it or an older version of "
            f"rammerge made it; run its recipe again"
        ) from error
    name = found.info.run_name
    called = f"{name} {identity[:_ID_DIGITS]}" if run == identity else name
    return called, read_page(content, board, called)


def read_page(content: Mapping[str, Any], board: Mapping[str, Any], run: str) -> Page:
    """Return what the report of a run said, from its two files.

    Raises:
        InputError: a different version of rammerge wrote them.
    """
    try:
        page = Page.from_json(content, Leaderboard.from_json(board))
        samples = {
            model: {suite: str(store.here(Path(file))) for suite, file in files.items()}
            for model, files in page.samples.items()
        }
        return replace(page, samples=samples)
    except ValidationError as error:
        raise InputError(
            f"the report of {run} was written by a different version of rammerge; run its recipe again with this one"
        ) from error


def _run(run: str) -> Any:
    from mlflow.exceptions import MlflowException
    from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

    mlflow = client()
    if _RUN_ID.fullmatch(run):
        try:
            return mlflow.get_run(run)
        except MlflowException:
            return None
    experiment = mlflow.get_experiment_by_name(run)
    if experiment is None:
        return None
    wanted = f"tags.`{TAG_PIPELINE}` != '' and attributes.status = 'FINISHED'"
    parents = mlflow.search_runs([experiment.experiment_id], wanted, order_by=["attributes.start_time DESC"])
    return next((each for each in parents if MLFLOW_PARENT_RUN_ID not in each.data.tags), None)
