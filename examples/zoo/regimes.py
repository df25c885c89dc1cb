"""How agents are trained: three regimes, which differ in what masks they leave, and the settings of each agent.

SGD moves a weight by as much as its gradient says, so agents change different elements. AdamW moves every weight by
about the learning rate, whatever the gradient. If weights are kept in bfloat16, such a step is lost wherever it is
below half the distance to the next value, so every agent changes the same elements: the small ones. With float32
masters the steps add up, and almost every element changes.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import torch
from torch import Tensor

Regime = Literal["sgd", "adamw-bf16", "adamw-float32"]
REGIMES: tuple[Regime, ...] = get_args(Regime)


@dataclass(frozen=True)
class GrpoSettings:
    """How an agent is trained. `momentum` is that of SGD; AdamW has its usual betas and no weight decay."""

    seed: int
    steps: int
    prompts: int = 24
    samples: int = 8
    learning_rate: float = 0.01
    momentum: float = 0.9
    regime: Regime = "sgd"


AGENTS = {
    "tool": GrpoSettings(seed=11, steps=160, prompts=40, samples=12),
    "code": GrpoSettings(seed=12, steps=40),
    "memory": GrpoSettings(seed=13, steps=200, learning_rate=0.005),
}
_ADAMW_STEPS = {"tool": 80, "code": 40, "memory": 100}


def settings_of(name: str, seed: int = 1, regime: Regime = "sgd") -> GrpoSettings:
    """Return the settings of a domain's agent; its own seed derives from the `seed` of its base.

    Seed 1 under SGD is the committed zoo. The other seeds train `tool` on smaller batches there, which takes less than
    half the time.
    """
    settings = replace(AGENTS[name], seed=AGENTS[name].seed + 10 * (seed - 1), regime=regime)
    if regime != "sgd":
        return replace(settings, steps=_ADAMW_STEPS[name], prompts=24, samples=8, learning_rate=1.5e-4)
    return settings if seed == 1 else replace(settings, prompts=24, samples=8)


def build_optimizer(parameters: Iterable[Tensor], settings: GrpoSettings) -> torch.optim.Optimizer:
    """Return the optimizer of a regime for `parameters`, which are float32."""
    if settings.regime == "sgd":
        return torch.optim.SGD(parameters, lr=settings.learning_rate, momentum=settings.momentum)
    optimizer = torch.optim.AdamW(parameters, lr=settings.learning_rate, weight_decay=0.0)
    if settings.regime == "adamw-bf16":
        optimizer.register_step_post_hook(_round_weights)
    return optimizer


@torch.no_grad()
def _round_weights(optimizer: torch.optim.Optimizer, *_: Any) -> None:
    """Give every weight the bfloat16 value that it would have been stored as; computing stays in float32."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.copy_(parameter.bfloat16())
