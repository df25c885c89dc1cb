"""The items that each look of a search asks: the same for every model, in an order that only names decide."""

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

from evaluation.runners.tasks import count_items
from evaluation.search.schedule import slices
from evaluation.suites import Suite

if TYPE_CHECKING:
    from lm_eval.api.task import Task


def positions(suite: Suite, tasks: "Mapping[str, Task]", look: int, limit: int | None) -> dict[str, list[int]]:
    """Return the positions, in rising order, of the items that a look adds, for each task to which it adds some.

    Args:
        suite: whose tasks they are.
        tasks: the tasks of one split.
        look: counted from 0.
        limit: the first items of each task, to which a quick run keeps.
    """
    found = {}
    for name, task in tasks.items():
        items = count_items(task, limit)
        start, end = slices(items)[look]
        if start < end:
            found[name] = sorted(_order(f"{suite.name}\0{name}", items)[start:end])
    return found


def _order(name: str, items: int) -> list[int]:
    """Return the positions in an order that looks like chance, and is the same with every version of every library."""
    return sorted(range(items), key=lambda item: hashlib.sha256(f"{name}\0{item}".encode()).digest())
