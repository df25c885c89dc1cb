"""Suites. Each is a directory that says what is asked, how it is scored, and which items select and which report."""

from evaluation.suites.loading import SPLITS, Sampling, Split, Suite, available_suites, load_suite
from evaluation.suites.splits import cluster_of
from evaluation.suites.taskfile import FunctionReference, TaskFile

__all__ = [
    "SPLITS",
    "FunctionReference",
    "Sampling",
    "Split",
    "Suite",
    "TaskFile",
    "available_suites",
    "cluster_of",
    "load_suite",
]
