"""Writing to MLflow: runs, versions and aliases."""
