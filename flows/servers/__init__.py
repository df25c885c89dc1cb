"""Prefect and MLflow as servers on loopback."""
