"""Contract: for any float tensors and any number of agents the engine counts exactly what a float64 reference counts.

What it writes is within one rounding of the output dtype of what the reference computes.
"""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rammerge.engine.options import MergeOptions
from rammerge.recipe.section import Dtype
from rammerge.rules import resolve
from tests.engine import oracle
from tests.engine.drawn import close, families, magnitude
from tests.engine.models import as_float64, measure_overlap, merge, read, sparse_family, write_family


@settings(max_examples=40)
@given(
    family=families(),
    method=st.sampled_from(
        [
            ("ram", {}),
            ("ram_plus", {}),
            ("ram_plus", {"scope": "tensor", "r": 0.3}),
            ("ram_plus_soft", {"epsilon": 1e-3}),
            ("ram", {"shared_exponent": 0.5}),
            ("ram_plus", {"shared_exponent": 0.0, "conflict_exponent": 0.7}),
            ("average", {}),
            ("task_arithmetic", {"scale": 0.7}),
            ("ties", {}),
            ("ties", {"scope": "tensor", "density": 0.4, "merge": "sum", "scale": 0.5}),
        ]
    ),
    dtype=st.sampled_from(["float32", "bfloat16", "float16"]),
)
def test_against_the_float64_reference(family: Any, method: tuple[str, dict[str, Any]], dtype: Dtype) -> None:
    base, agents = family
    name, params = method
    with tempfile.TemporaryDirectory() as directory:
        models = write_family(Path(directory), base, agents)
        report = merge(*models, resolve(name, None, params), Path(directory) / "out", MergeOptions(dtype=dtype))
        merged = read(report.path)
    assert set(merged) == set(base)
    before, after = as_float64(base), [as_float64(agent) for agent in agents]
    expected = reference(before, after, name, params)
    for tensor, values in merged.items():
        assert values.shape == base[tensor].shape
        assert values.dtype == getattr(torch, dtype)
        close(values, expected[tensor], dtype, magnitude(before[tensor], [agent[tensor] for agent in after]))
    epsilon = params.get("epsilon", 1e-5)
    counts = oracle.histogram(before, after, epsilon, sorted(before))
    found = report.manifest.survival.agents
    assert [agent.active for agent in found.values()] == [sum(row) for row in counts]
    assert [agent.unique for agent in found.values()] == [row[0] for row in counts]


def reference(base: oracle.Model, agents: list[oracle.Model], name: str, params: dict[str, Any]) -> oracle.Model:
    if name == "ties":
        density, scale = params.get("density", 0.2), params.get("scale", 1.0)
        per_tensor, mean = params.get("scope") == "tensor", params.get("merge") != "sum"
        return oracle.ties(base, agents, density, scale, per_tensor=per_tensor, mean=mean)
    merged = {}
    epsilon = params.get("epsilon", 1e-5)
    for tensor in base:
        own = [agent[tensor] for agent in agents]
        if name in ("average", "task_arithmetic"):
            merged[tensor] = oracle.task_arithmetic(base[tensor], own, params.get("scale", 1 / len(agents)))
            continue
        counted = [tensor] if params.get("scope") == "tensor" else sorted(base)
        counts = oracle.histogram(base, agents, epsilon, counted)
        factors = oracle.lambdas(counts, name, params.get("r", 0.1), params.get("alpha", 2.0))
        shared = params.get("shared_exponent", 1.0)
        exponents = shared, params.get("conflict_exponent", shared)
        merged[tensor] = oracle.ram(base[tensor], own, epsilon, factors, *exponents)
    return merged


@settings(max_examples=30)
@given(family=families(), epsilon=st.sampled_from([0.0, 1e-5, 1e-3]))
def test_overlap_is_counted_exactly(family: Any, epsilon: float) -> None:
    from rammerge.numerics.masks import Mask

    base, agents = family
    with tempfile.TemporaryDirectory() as directory:
        overlap = measure_overlap(*write_family(Path(directory), base, agents), mask=Mask("abs", epsilon))
    before, after = as_float64(base), [as_float64(agent) for agent in agents]
    assert overlap.histogram() == oracle.histogram(before, after, epsilon, sorted(before))
    for tensor in base:
        assert overlap.histogram(tensor) == oracle.histogram(before, after, epsilon, [tensor])
    assert type(overlap).from_json(overlap.to_json()) == overlap
    found = list(overlap.densities.values())
    for index, densities in enumerate(found):
        for text, share in densities.above.items():
            active = oracle.histogram(before, after, float(text), sorted(before))[index]
            assert share == sum(active) / overlap.elements


def test_a_change_of_exactly_epsilon_is_no_change(tmp_path: Path) -> None:
    epsilon = float(torch.tensor(1e-5))
    base = {"w": torch.zeros(3)}
    agent = {"w": torch.tensor([epsilon, -epsilon, np.nextafter(np.float32(epsilon), np.float32(1)).item()])}
    overlap = measure_overlap(*write_family(tmp_path, base, [agent]))
    assert overlap.histogram() == [[1]]


@pytest.mark.parametrize("densities", [(0.3, 0.3), (0.9, 0.05, 0.5)])
def test_dare_drops_at_its_rate_and_keeps_the_expectation(tmp_path: Path, densities: tuple[float, ...]) -> None:
    base, agents = sparse_family({"w": (300, 300)}, [1.0] * len(densities), dtype=torch.float32)
    models = write_family(tmp_path, base, agents)
    report = merge(*models, resolve("dare", None, {"drop_rate": 0.8}), tmp_path / "out")
    delta = read(report.path)["w"].double() - base["w"].double()
    expected = torch.stack([agent["w"].double() - base["w"].double() for agent in agents])
    # A changed element survives at each agent with probability 0.2, divided by 0.2: the mean is the sum of both.
    untouched = float((delta.abs() < 1e-9).double().mean())
    assert untouched == pytest.approx(0.8 ** len(densities), abs=0.01)
    slope = float((delta * expected.sum(0)).sum() / (expected.sum(0) ** 2).sum())
    assert slope == pytest.approx(1.0, abs=0.03)


def test_dare_ties_trims_what_dare_left(tmp_path: Path) -> None:
    base, agents = sparse_family({"w": (100, 100)}, [1.0, 1.0], dtype=torch.float32)
    models = write_family(tmp_path, base, agents)
    method = resolve("dare_ties", None, {"drop_rate": 0.5, "density": 0.1})
    merged = read(merge(*models, method, tmp_path / "out").path)["w"]
    changed = (merged != base["w"]).double().mean()
    # Each keeps the largest 10 % of its vector; two agents' positions overlap by chance in about 1 %.
    assert float(changed) == pytest.approx(0.19, abs=0.02)
