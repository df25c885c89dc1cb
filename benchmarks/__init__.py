"""Measurements of the merge engine, run by hand: python -m benchmarks.merge --help."""
