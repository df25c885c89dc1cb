"""Suites. Each is a directory that says what is asked, how it is scored, and which items select and which report."""

from evaluation.suites.loading import SPLITS, Split, Suite, available_suites, load_suite
from evaluation.suites.taskfile import FunctionReference, TaskFile

__all__ = ["SPLITS", "FunctionReference", "Split", "Suite", "TaskFile", "available_suites", "load_suite"]
