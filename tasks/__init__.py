"""One Prefect task a step of the pipeline."""
