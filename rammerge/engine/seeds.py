"""Seeds of a tensor's random numbers, from the run's seed and names."""

from functools import cache

import torch
from torch import Tensor

from rammerge.engine.session import Session
from rammerge.randomness import seed_from


def tensor_seeds(session: Session, tensor: str) -> Tensor:
    """Return int64 [1 + agents]: the seed of the tensor's rounding, then that of each agent's draws."""
    return _seeds(session.options.seed, tensor, tuple(session.agents))


@cache
def _seeds(seed: int, tensor: str, agents: tuple[str, ...]) -> Tensor:
    rounding = seed_from(seed, "rounding", tensor)
    return torch.tensor([rounding, *(seed_from(seed, "agent", agent, tensor) for agent in agents)], dtype=torch.int64)
