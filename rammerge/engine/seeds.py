"""Seeds of a tensor's random numbers, from the run's seed and names."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from rammerge.numerics.randomness import seed_from

if TYPE_CHECKING:
    from rammerge.engine.session import Session


def tensor_seeds(session: Session, tensor: str) -> tuple[int, ...]:
    """Return the seed of the tensor's rounding, then that of each agent's draws."""
    return _seeds(session.options.seed, tensor, tuple(session.agents))


@cache
def _seeds(seed: int, tensor: str, agents: tuple[str, ...]) -> tuple[int, ...]:
    return (seed_from(seed, "rounding", tensor), *(seed_from(seed, "agent", agent, tensor) for agent in agents))
