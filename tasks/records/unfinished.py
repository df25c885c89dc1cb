"""MLflow runs that a pipeline run left open when its process died."""

from uuid import UUID

from tasks.records.connection import client
from tasks.records.listing import every_experiment, every_run
from tasks.records.log import TAG_PREFECT_RUN


def end_unfinished(flow_run: UUID) -> None:
    """End the MLflow runs of a Prefect flow run that are still open, as killed."""
    mlflow = client()
    unfinished = f"attributes.status = 'RUNNING' and tags.`{TAG_PREFECT_RUN}` LIKE '%{flow_run}'"
    for run in every_run(mlflow, every_experiment(mlflow), unfinished):
        mlflow.set_terminated(run.info.run_id, "KILLED")
