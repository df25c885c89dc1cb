"""How far the work is, for whoever shows it."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """How far a stage is, in elements."""

    stage: str
    done: int
    total: int


OnProgress = Callable[[Progress], None]
