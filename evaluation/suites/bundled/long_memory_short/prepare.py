"""Prompts of 400 and 1,200 tokens, about."""

from collections.abc import Mapping
from typing import Any

from evaluation.suites.format import Split
from evaluation.suites.making import memory


def items(_files: Mapping[str, bytes]) -> Mapping[Split, list[dict[str, Any]]]:
    """Return the items by split."""
    return memory.items([400, 1_200], {"validation": 16, "test": 32})
