"""Suites, the lm-eval runner, statistics of comparison and gates. Knows neither Prefect nor MLflow."""
