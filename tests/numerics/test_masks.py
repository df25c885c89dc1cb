"""Contract: each mask mode marks exactly the elements that its definition names, for every pair of stored dtypes."""

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rammerge.numerics.masks import MaskMode, changes

FLOATS = st.floats(-4, 4, width=32)
DTYPES = st.sampled_from([torch.bfloat16, torch.float16, torch.float32])


def pair(values: list[tuple[float, float]], base: torch.dtype, agent: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    left, right = zip(*values, strict=True)
    return torch.tensor(left).to(base), torch.tensor(right).to(agent)


@settings(max_examples=200)
@given(
    values=st.lists(st.tuples(FLOATS, FLOATS) | FLOATS.map(lambda x: (x, x)), min_size=1, max_size=40),
    dtypes=st.tuples(DTYPES, DTYPES),
    threshold=st.sampled_from([0.0, 1e-5, 1e-3, 0.5]),
)
def test_abs_relative_and_exact(
    values: list[tuple[float, float]], dtypes: tuple[torch.dtype, torch.dtype], threshold: float
) -> None:
    base, agent = pair(values, *dtypes)
    before, after = base.float().numpy(), agent.float().numpy()
    limit = np.float32(threshold)
    delta = after - before
    expected: dict[MaskMode, npt.NDArray[np.bool_]] = {
        "abs": np.abs(delta) > limit,
        "relative": np.abs(delta) > limit * np.maximum(np.abs(before), np.abs(after)),
        "exact": agent.to(base.dtype).float().numpy() != before,
    }
    for mode, active in expected.items():
        found, mask = changes(base, agent, mode, torch.tensor(threshold))
        assert np.array_equal(found.numpy(), delta)
        assert np.array_equal(mask.numpy(), active.astype(np.float32)), mode


@settings(max_examples=100)
@given(start=FLOATS, steps=st.integers(-300, 300), ulps=st.integers(1, 200), dtype=DTYPES | st.just(torch.float64))
def test_ulp_counts_representable_steps(start: float, steps: int, ulps: int, dtype: torch.dtype) -> None:
    base = torch.tensor([start]).to(dtype)
    agent = base.clone()
    toward = torch.tensor([torch.inf if steps > 0 else -torch.inf], dtype=dtype)
    for _ in range(abs(steps)):
        agent = torch.nextafter(agent, toward)
    _, mask = changes(base, agent, "ulp", torch.tensor(float(ulps)))
    assert mask.item() == float(abs(steps) >= ulps)


@pytest.mark.parametrize("mode", ["abs", "relative", "exact", "ulp"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_what_is_not_finite_stays_visible(mode: MaskMode, value: float) -> None:
    for base, agent in (([0.5], [value]), ([value], [0.5])):
        delta, mask = changes(torch.tensor(base), torch.tensor(agent), mode, torch.tensor(1.0))
        assert not torch.isfinite(delta * mask).all() or not torch.isfinite(delta).all()
