"""Contract: stochastic rounding goes to a neighbor, with the right expectation.

It never moves a value that the dtype holds, and it draws from names and indices alone. The rounding report says what a
cast destroys.
"""

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rammerge.engine.options import MergeOptions
from rammerge.numerics.randomness import random_bits, seed_from, uniform
from rammerge.numerics.rounding import Rounding, cast
from rammerge.recipe.section import Dtype
from rammerge.rules import resolve
from tests.engine.models import merge, read, sparse_family, write_family

ZERO = torch.tensor(0)
DTYPES = [torch.bfloat16, torch.float16]


def stochastic(values: torch.Tensor, dtype: torch.dtype, seed: int = 1, start: int = 0) -> torch.Tensor:
    return cast(values, dtype, "stochastic", torch.tensor(seed), torch.tensor(start))


@settings(max_examples=150)
@given(
    values=st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=50),
    dtype=st.sampled_from(DTYPES),
    seed=st.integers(0, 2**62 - 1),
)
def test_stochastic_goes_to_a_neighbour(values: list[float], dtype: torch.dtype, seed: int) -> None:
    exact = torch.tensor(values)
    exact = exact[exact.abs() <= torch.finfo(dtype).max]
    rounded = stochastic(exact, dtype, seed)
    nearest = exact.to(dtype)
    below = torch.where(
        nearest.double() > exact.double(), torch.nextafter(nearest, nearest.new_tensor(-torch.inf)), nearest
    )
    above = torch.where(
        nearest.double() < exact.double(), torch.nextafter(nearest, nearest.new_tensor(torch.inf)), nearest
    )
    assert bool(((rounded == below) | (rounded == above)).all())
    held = nearest.float() == exact
    assert torch.equal(rounded[held], nearest[held])
    assert bool(torch.isfinite(rounded).all())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("value", [0.0203111, -0.0203111, 1.0001, 3.1e-5, -7e-6, 100.03])
def test_stochastic_is_unbiased(dtype: torch.dtype, value: float) -> None:
    count = 200_000
    exact = torch.full((count,), value)
    rounded = stochastic(exact, dtype, seed_from(str(value), str(dtype))).double()
    low, high = rounded.min().item(), rounded.max().item()
    share = (float(exact[0]) - low) / (high - low) if high > low else 0.0
    spread = (high - low) * (share * (1 - share) / count) ** 0.5
    assert abs(rounded.mean().item() - float(exact[0])) <= 5 * spread + 1e-12


def test_random_bits_depend_on_the_index_alone() -> None:
    seed, whole = torch.tensor(seed_from("run", "tensor")), torch.empty(10_000)
    start = 2**32 - 5_000  # across the boundary of the lower half
    expected = random_bits(seed, torch.tensor(start), whole)
    parts = [random_bits(seed, torch.tensor(start + at), whole[at : at + 1234]) for at in range(0, 10_000, 1234)]
    assert torch.equal(torch.cat(parts), expected)
    assert 0 <= int(expected.min()) <= int(expected.max()) < 2**32


@pytest.mark.parametrize("names", [("a", "b"), ("layer.1", "layer.2")])
def test_draws_are_uniform_and_independent(names: tuple[str, str]) -> None:
    like = torch.empty(1 << 18)
    left, right = (uniform(torch.tensor(seed_from(0, name)), ZERO, like).double() for name in names)
    for draws in (left, right):
        counts = torch.histc(draws, 64, 0, 1)
        chi_square = ((counts - len(like) / 64) ** 2 / (len(like) / 64)).sum()
        assert 25 < chi_square < 125  # 63 degrees of freedom: about six standard deviations either way
        assert abs(torch.corrcoef(torch.stack([draws[:-1], draws[1:]]))[0, 1]) < 0.01
    assert abs(torch.corrcoef(torch.stack([left, right]))[0, 1]) < 0.01


def test_bits_are_balanced() -> None:
    bits = random_bits(torch.tensor(seed_from("x")), ZERO, torch.empty(1 << 18))
    for place in range(32):
        assert ((bits >> place) & 1).double().mean().item() == pytest.approx(0.5, abs=0.006)


@pytest.mark.parametrize(
    ("dtype", "rounding"), [("bfloat16", "nearest"), ("float32", "nearest"), ("bfloat16", "stochastic")]
)
def test_report_counts_what_survives(tmp_path: Path, dtype: Dtype, rounding: Rounding) -> None:
    base, agents = sparse_family({"w": (200, 100)}, [0.2, 0.3], dtype=torch.float32)
    base = {name: values.bfloat16() for name, values in base.items()}
    models = write_family(tmp_path, base, agents)
    report = merge(*models, resolve("ram"), tmp_path / "out", MergeOptions(dtype, rounding))
    merged = read(report.path)["w"].float()
    found = report.manifest.survival
    changed = merged != base["w"].float()
    for index, row in enumerate(found.agents.values()):
        active = (agents[index]["w"] - base["w"].float()).abs() > 1e-5
        assert row.survived == int((active & changed).sum())
    assert found.kept == int(changed.sum())


def test_warning_when_rounding_erases_the_rescaling(tmp_path: Path) -> None:
    # One-step changes of bfloat16 times 1.05 round back to one step.
    base = {"w": torch.full((64, 64), 0.02).bfloat16()}
    step = 2.0**-13
    agents = [{"w": base["w"].clone()} for _ in range(2)]
    agents[0]["w"][:40] += step
    agents[1]["w"][24:] += step
    models = write_family(tmp_path, base, agents)
    method = resolve("ram_plus", None, {"r": 0.05})
    rounded = merge(*models, method, tmp_path / "bf16", MergeOptions("bfloat16"))
    assert rounded.manifest.to_json()["rounding_report"]["distinct_from_ram"] == 0
    assert any("rounding erases its rescaling" in warning for warning in rounded.warnings)
    kept = merge(*models, method, tmp_path / "f32", MergeOptions("float32"))
    assert kept.manifest.to_json()["rounding_report"]["distinct_from_ram_share"] == 1.0
    assert not any("rounding erases" in warning for warning in kept.warnings)
