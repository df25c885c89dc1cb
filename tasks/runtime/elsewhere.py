"""Steps that other workers run. What they make is in the store afterwards, which all workers of a run share.

Who runs them is not known here: the pipeline says for each kind of work whom to ask.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Literal

# What a worker does for a step: it merges, or it runs a model.
Work = Literal["merge", "evaluate"]


@dataclass(frozen=True)
class Asked:
    """A step that another worker shall run.

    Attributes:
        kind: the step's kind.
        name: of the task run.
        arguments: of the step, by name.
    """

    kind: str
    name: str
    arguments: Mapping[str, Any]


# Has a step run, and returns when its output is in the store.
Ask = Callable[[Asked], None]

# Of the flow: Prefect runs each step in a copy of the context in which it was submitted.
_asking: ContextVar[Mapping[str, Ask]] = ContextVar("rammerge_elsewhere")


@contextmanager
def elsewhere(asking: Mapping[str, Ask]) -> Iterator[None]:
    """Within the context, have steps run by whom `asking` names for their kind of work; the others run here."""
    token = _asking.set(asking)
    try:
        yield
    finally:
        _asking.reset(token)


def whom_to_ask(work: Work | None) -> Ask | None:
    """Return what has a step run that does this kind of work, or None if it runs here."""
    return None if work is None else _asking.get({}).get(work)
