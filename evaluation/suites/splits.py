"""What keeps validation and test apart: no prompt and no cluster of related items lies in both."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from evaluation.suites.taskfile import TaskFile
from rammerge.errors import InputError


def cluster_of(item: Mapping[str, Any], field: str, where: str) -> str:
    """Return the cluster of an item.

    Args:
        item: what the task file and the scoring function use.
        field: the item's key that names its cluster.
        where: what messages call the task.

    Raises:
        InputError: the item has no such key, or its value is neither text nor a whole number.
    """
    value = item.get(field)
    if isinstance(value, str | int):
        return str(value)
    shown = "lacks that key" if value is None else f"has {value!r} there"
    raise InputError(
        f"{where} is clustered by '{field}', but the item {item.get('id', '')!s:.60} {shown}; give every item text or "
        f"a whole number"
    )


def refuse_shared_prompts(path: Path, validation: Sequence[TaskFile], test: Sequence[TaskFile]) -> None:
    """Refuse a suite at `path` that asks the same prompt in both splits."""
    shared = _prompts(validation) & _prompts(test)
    if shared:
        raise InputError(
            f"{path}: {len(shared)} prompts are in both splits (one is {min(shared)[:60]!r}), but nothing may be "
            f"selected on the items it is reported on: remove them from one split"
        )


def refuse_shared_clusters(path: Path, field: str, validation: Iterable[str], test: Iterable[str]) -> None:
    """Refuse a suite at `path` with a cluster in both splits: the split would not be a fresh judgment."""
    shared = sorted(set(validation) & set(test))
    if shared:
        raise InputError(
            f"{path}: {len(shared)} clusters are in both splits (one has {field}: {shared[0][:60]}), but items of one "
            f"cluster are related, and nothing may be selected on what it is reported on: move each cluster to one "
            f"split"
        )


def local_clusters(tasks: Sequence[TaskFile], field: str) -> set[str]:
    """Return the clusters of the tasks' local items, except those that `process_docs` may still change."""
    own = (task for task in tasks if "process_docs" not in task.config)
    return {cluster_of(item, field, f"{task.path}") for task in own for item in task.items()}


def _prompts(tasks: Sequence[TaskFile]) -> set[str]:
    return {prompt for task in tasks for prompt in task.prompts()}
