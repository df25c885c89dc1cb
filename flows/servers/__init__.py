"""Prefect and MLflow as servers, on loopback or for other machines."""
