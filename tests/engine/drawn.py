"""Families that hypothesis draws, and how close a merge of one must be to its float64 reference."""

import numpy as np
import torch
from hypothesis import strategies as st

from tests.engine import oracle

DTYPES = [torch.bfloat16, torch.float16, torch.float32]
MANTISSA = {"bfloat16": 8, "float16": 11, "float32": 24}
SMALLEST_STEP = {"bfloat16": 2.0**-133, "float16": 2.0**-24, "float32": 2.0**-149}


@st.composite
def families(draw: st.DrawFn) -> tuple[dict[str, torch.Tensor], list[dict[str, torch.Tensor]]]:
    """A base and 1 to 8 agents: tensors of 0 to 3 dimensions, empty ones too, dtypes mixed over tensors and agents."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    shapes = draw(st.lists(st.lists(st.integers(0, 9), max_size=3), min_size=1, max_size=4))
    # Every agent changes the last tensor; otherwise two agents could be equal, and equal agents are refused.
    shapes.append([17])
    count = draw(st.integers(1, 8))
    base: dict[str, torch.Tensor] = {}
    agents: list[dict[str, torch.Tensor]] = [{} for _ in range(count)]
    for index, shape in enumerate(shapes):
        name = f"layer.{index}.weight"
        values = torch.randn(shape, generator=generator) * 10.0 ** draw(st.integers(-3, 1))
        base[name] = values.to(draw(st.sampled_from(DTYPES)))
        for number, agent in enumerate(agents):
            density = 1.0 if index == len(shapes) - 1 else draw(st.sampled_from([0.0, 0.03, 0.5, 1.0]))
            moved = torch.rand(shape, generator=generator) < density
            step = torch.randn(shape, generator=generator) * draw(st.sampled_from([1e-5, 1e-3, 0.1]))
            if index == len(shapes) - 1:
                step = torch.full(shape, 0.25 * (number + 1))
            dtype = draw(st.sampled_from([base[name].dtype, *DTYPES]))
            agent[name] = (base[name].float() + moved * step).to(dtype)
    return base, agents


def close(found: torch.Tensor, expected: oracle.Array, dtype: str, scale: oracle.Array) -> None:
    """Assert half a step of the output dtype, and a few roundings of float32 at the inputs' magnitude `scale`."""
    step = np.maximum(np.abs(expected) * 2.0 ** (1 - MANTISSA[dtype]), SMALLEST_STEP[dtype])
    error = np.abs(found.double().numpy() - expected)
    assert np.all(error <= 0.5 * step * (1 + 2.0**-7) + 4 * scale * 2.0**-24), error.max()


def magnitude(base: oracle.Array, agents: list[oracle.Array]) -> oracle.Array:
    total: oracle.Array = np.abs(base) + np.sum([np.abs(agent - base) for agent in agents], axis=0)
    return total
