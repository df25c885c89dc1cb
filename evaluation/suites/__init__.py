"""Suites. Each is a directory that says what is asked, how it is scored, and which items select and which report."""

from evaluation.suites.catalogue import Bundled, available_suites, bundled_suites, ready
from evaluation.suites.format import SPLITS, Sampling, Split
from evaluation.suites.functions import FunctionReference
from evaluation.suites.loading import Suite, load_suite
from evaluation.suites.splits import cluster_of
from evaluation.suites.taskfile import TaskFile

__all__ = [
    "SPLITS",
    "Bundled",
    "FunctionReference",
    "Sampling",
    "Split",
    "Suite",
    "TaskFile",
    "available_suites",
    "bundled_suites",
    "cluster_of",
    "load_suite",
    "ready",
]
