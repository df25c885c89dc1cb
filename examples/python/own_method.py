"""A merge method of your own: of the agents' changes, take the largest one at each element, times a scale.

From Python: `python examples/python/own_method.py OUT`, in a checkout. From a command line, in this directory:
`rammerge merge ... --method own_method:LARGEST --trust own_method --set scale=0.5`. From a recipe beside this file:
`trust: [own_method]` and `merges: [{method: "own_method:LARGEST"}]`.
"""

import sys
from pathlib import Path

import torch
from pydantic import Field

import rammerge
from rammerge import Block, Method, Params, Statistics, Update


class LargestParams(Params):
    """The parameters: fields with types, bounds, defaults and descriptions."""

    scale: float = Field(1.0, ge=0, description="factor of the largest change")


def largest(block: Block) -> Update:
    """Return the update of a block: a pure function of float32 tensors of shape [n]."""
    chosen = block.deltas[0]
    for delta in block.deltas[1:]:
        chosen = torch.where(delta.abs() > chosen.abs(), delta, chosen)
    return Update(chosen * block.coefficients[0, 0])


def scale(params: LargestParams, _: Statistics, __: str, agents: int) -> list[list[float]]:
    """Return the numbers that the function reads as `block.coefficients`, one for each agent."""
    return [[params.scale] * agents]


LARGEST = Method(
    name="largest",
    summary="At each element, the change with the largest magnitude.",
    source="an example",
    params=LargestParams,
    kernel=largest,
    coefficients=scale,
    presets={"half": {"scale": 0.5}},
    preset_sources={"half": "an example"},
)


if __name__ == "__main__":
    zoo = Path(__file__).parent.parent / "zoo" / "checkpoints"
    agents = {name: zoo / name for name in ("tool", "code")}
    print(rammerge.merge(zoo / "base", agents, method=LARGEST, preset="half", out=sys.argv[1]))
