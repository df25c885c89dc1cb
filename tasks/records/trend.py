"""The trend of each recipe in MLflow: one run, whose metrics have the number of the pipeline's run as their step."""

import time
from collections.abc import Mapping

from tasks.records.connection import client
from tasks.records.experiments import experiment_of
from tasks.records.trouble import explained

# No recipe can be called so, because of the space.
EXPERIMENT = "rammerge trends"
_TAG = "rammerge.trend"


@explained()
def log_trend(recipe: str, number: int, metrics: Mapping[str, float]) -> tuple[str, str]:
    """Add a point to the trend of `recipe`, at the step `number`; return the experiment and the run that have it."""
    from mlflow.entities import Metric

    mlflow = client()
    experiment = experiment_of(mlflow, EXPERIMENT)
    found = mlflow.search_runs([experiment], f"tags.`{_TAG}` = '{recipe}'", max_results=1)
    if found:
        run = found[0].info.run_id
    else:
        run = mlflow.create_run(experiment, tags={_TAG: recipe}, run_name=recipe).info.run_id
        mlflow.set_terminated(run)
    now = round(time.time() * 1000)
    mlflow.log_batch(run, metrics=[Metric(name, value, now, number) for name, value in metrics.items()])
    return experiment, str(run)
