"""Contract: methods that combine task vectors by their inner products do what their formulas say of whole vectors.

The formulas are written here in float64 on whole vectors. The algebra that they imply holds: for agents in a different
order, all scaled, alone, identical, orthogonal or unchanged.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rammerge.checkpoints.family import Family
from rammerge.engine.passes.measuring import measure_overlap
from rammerge.rules import resolve
from rammerge.rules.span.awd import redundant
from rammerge.rules.span.means import karcher_factors, slerp_factors, stock_factors
from tests.engine.models import as_float64, merge, read, sparse_family, write_family

Vector = npt.NDArray[np.float64]
Vectors = list[Vector]
METHODS = ("multi_slerp", "karcher", "model_stock", "awd")


def products(vectors: Vectors) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(float(np.dot(left, right)) for right in vectors) for left in vectors)


def combine(vectors: Vectors, factors: Sequence[float]) -> Vector:
    combined: Vector = np.sum([factor * vector for factor, vector in zip(factors, vectors, strict=True)], axis=0)
    return combined


def found(method: str, vectors: Vectors, iterations: int = 300) -> Vector:
    gram = products(vectors)
    if method == "awd":
        factors = [1 - len(vectors) * factor for factor in redundant(gram, 0.1, 0.01, iterations)]
    else:
        chosen: dict[str, Callable[[], Sequence[float]]] = {
            "multi_slerp": lambda: slerp_factors(gram),
            "karcher": lambda: karcher_factors(gram, 100, 1e-12),
            "model_stock": lambda: stock_factors(gram),
        }
        factors = list(chosen[method]())
    return combine(vectors, factors)


def expected(method: str, vectors: Vectors) -> Vector:
    oracles: dict[str, Callable[[Vectors], Vector]]
    oracles = {"multi_slerp": multi_slerp, "karcher": karcher, "model_stock": model_stock, "awd": awd}
    return oracles[method](vectors)


def multi_slerp(vectors: Vectors) -> Vector:
    """Mergekit's formula, with the tangent step."""
    units = [vector / np.linalg.norm(vector) for vector in vectors]
    mean = np.mean(units, axis=0)
    mean /= np.linalg.norm(mean)
    tangent = np.mean([unit - np.dot(unit, mean) * mean for unit in units], axis=0)
    length = np.linalg.norm(tangent) + 1e-8
    on_sphere = mean * np.cos(length) + tangent * np.sin(length) / length
    merged: Vector = on_sphere * np.mean([np.linalg.norm(vector) for vector in vectors])
    return merged


def karcher(vectors: Vectors) -> Vector:
    units = [vector / np.linalg.norm(vector) for vector in vectors]
    mean = np.mean(units, axis=0)
    mean /= np.linalg.norm(mean)
    for _ in range(200):
        logs = []
        for unit in units:
            angle = np.arccos(np.clip(np.dot(unit, mean), -1, 1))
            logs.append((angle / np.sin(angle) if angle > 1e-7 else 1.0) * (unit - np.cos(angle) * mean))
        step = np.mean(logs, axis=0)
        length = float(np.linalg.norm(step))
        if length < 1e-13:
            break
        mean = np.cos(length) * mean + np.sin(length) * step / length
        mean /= np.linalg.norm(mean)
    merged: Vector = mean * np.mean([np.linalg.norm(vector) for vector in vectors])
    return merged


def model_stock(vectors: Vectors) -> Vector:
    n = len(vectors)
    pairs = [(left, right) for at, left in enumerate(vectors) for right in vectors[:at]]
    cosine = np.mean([np.dot(x, y) / np.linalg.norm(x) / np.linalg.norm(y) for x, y in pairs]) if pairs else 1.0
    ratio = max(0.0, n * cosine / (1 + (n - 1) * cosine))
    merged: Vector = ratio * np.mean(vectors, axis=0)
    return merged


def awd(vectors: Vectors, iterations: int = 300) -> Vector:
    """Gradient descent by automatic differentiation on the vectors, in units of their root mean square length."""
    size = math.sqrt(float(np.mean([np.dot(vector, vector) for vector in vectors])))
    scaled = [torch.from_numpy(vector / size) for vector in vectors]
    removed = torch.zeros_like(scaled[0], requires_grad=True)
    best, least = removed.detach().clone(), math.inf
    for _ in range(iterations + 1):
        loss = awd_loss(scaled, removed)
        if loss.item() < least:
            best, least = removed.detach().clone(), loss.item()
        (slope,) = torch.autograd.grad(loss, removed)
        removed = (removed - 0.01 * slope).detach().requires_grad_()
    merged: Vector = np.sum(vectors, axis=0) - len(vectors) * size * best.numpy()
    return merged


def awd_loss(vectors: list[torch.Tensor], removed: torch.Tensor) -> torch.Tensor:
    rest = [vector - removed for vector in vectors]
    pairs = [(left, right) for at, left in enumerate(rest) for right in rest[:at]]
    cosines = [torch.dot(left, right) / left.norm() / right.norm() for left, right in pairs]
    loss: torch.Tensor = torch.stack(cosines).abs().mean() + 0.1 * removed.norm()
    return loss


@st.composite
def families(draw: st.DrawFn) -> Vectors:
    """Two to six vectors, of different lengths, that have something in common."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    common, share = rng.standard_normal(40), draw(st.floats(0.2, 2.0))
    lengths = draw(st.lists(st.floats(1e-6, 10.0), min_size=2, max_size=6))
    return [length * (rng.standard_normal(40) + share * common) for length in lengths]


@pytest.mark.parametrize("method", METHODS)
@settings(max_examples=25)
@given(vectors=families())
def test_the_formula_on_vectors(method: str, vectors: Vectors) -> None:
    # Where a cosine passes zero AWD's loss has a kink, after which rounding decides the path: compare the steps before.
    vectors = [vector / np.linalg.norm(vector) for vector in vectors] if method == "awd" else vectors
    wanted = awd(vectors, 15) if method == "awd" else expected(method, vectors)
    merged = found(method, vectors, iterations=15)
    np.testing.assert_allclose(merged, wanted, rtol=0, atol=1e-7 * float(np.linalg.norm(wanted)))


@settings(max_examples=10)
@given(vectors=families())
def test_awd_ends_where_the_descent_on_vectors_ends(vectors: Vectors) -> None:
    scaled = [torch.from_numpy(vector / np.linalg.norm(vector)) for vector in vectors]

    def loss(merged: Vector) -> float:
        removed = (np.sum([vector.numpy() for vector in scaled], axis=0) - merged) / len(scaled)
        return awd_loss(scaled, torch.from_numpy(removed)).item()

    units = [vector.numpy() for vector in scaled]
    assert loss(found("awd", units)) == pytest.approx(loss(awd(units)), rel=0.02)
    assert loss(found("awd", units)) < loss(np.sum(units, axis=0))


@pytest.mark.parametrize("method", METHODS)
@settings(max_examples=25)
@given(vectors=families(), power=st.integers(-20, 10))
def test_order_and_scale(method: str, vectors: Vectors, power: int) -> None:
    merged = found(method, vectors)
    size = float(np.linalg.norm(merged)) + sum(float(np.linalg.norm(vector)) for vector in vectors)
    np.testing.assert_allclose(found(method, vectors[::-1]), merged, rtol=0, atol=1e-12 * size)
    factor = 2.0**power  # exact: AWD's path turns on a rounding where a cosine passes zero
    scaled = found(method, [factor * vector for vector in vectors])
    np.testing.assert_allclose(scaled, factor * merged, rtol=0, atol=1e-12 * factor * size)


@pytest.mark.parametrize("method", METHODS)
def test_one_agent_comes_back(method: str) -> None:
    vector = np.random.default_rng(0).standard_normal(9)
    np.testing.assert_allclose(found(method, [vector]), vector, rtol=1e-14)


@pytest.mark.parametrize("method", ["multi_slerp", "karcher", "model_stock"])
def test_identical_agents_come_back(method: str) -> None:
    vector = np.random.default_rng(0).standard_normal(9)
    np.testing.assert_allclose(found(method, [vector] * 3), vector, rtol=1e-12)


def test_orthogonal_agents() -> None:
    one, other, third = (vector * np.ones(3) for vector in np.eye(3))
    vectors = [one, other, third]
    added = one + other + third
    np.testing.assert_allclose(found("awd", vectors), added)
    np.testing.assert_allclose(found("multi_slerp", vectors), added / math.sqrt(3))
    np.testing.assert_allclose(found("karcher", vectors), added / math.sqrt(3))
    np.testing.assert_allclose(found("model_stock", vectors), 0 * added)


def test_opposite_agents_have_no_direction_and_give_their_mean() -> None:
    vector = np.arange(1.0, 5.0)
    for method in ("multi_slerp", "karcher"):
        np.testing.assert_allclose(found(method, [vector, -3 * vector]), -vector)
    np.testing.assert_allclose(found("model_stock", [vector, -3 * vector]), 0 * vector)


@pytest.mark.parametrize("method", METHODS)
def test_a_tensor_that_no_agent_or_only_one_changed(method: str) -> None:
    nothing, vector = np.zeros(5), np.arange(1.0, 6.0)
    np.testing.assert_array_equal(found(method, [nothing, nothing]), nothing)
    merged = {"multi_slerp": vector / 2, "karcher": vector / 2, "model_stock": nothing, "awd": vector}[method]
    np.testing.assert_allclose(found(method, [vector, nothing]), merged)


def test_angles_too_small_for_the_arc_cosine() -> None:
    # 1e-5 radians apart: in float64 the cosine of that is known to a part in a million of the angle at best.
    one, turned = np.array([1.0, 0.0, 0.0]), np.array([math.cos(1e-5), math.sin(1e-5), 0.0])
    weighted = found("karcher", [one, turned, turned])
    assert math.atan2(weighted[1], weighted[0]) == pytest.approx(2e-5 / 3, rel=1e-6)


@pytest.mark.parametrize("scope", ["global", "tensor"])
@pytest.mark.parametrize("method", METHODS)
def test_whole_models(method: str, scope: str, tmp_path: Path) -> None:
    shapes = {"embed.weight": (70, 30), "layer.weight": (300, 200), "norm.weight": (30,), "scalar": ()}
    base, agents = sparse_family(shapes, [0.5, 1.0, 0.8])
    report = merge(*write_family(tmp_path, base, agents), resolve(method, None, {"scope": scope}), tmp_path / "out")
    merged, before = read(report.path), as_float64(base)
    deltas = [{name: as_float64(agent)[name] - before[name] for name in before} for agent in agents]
    for names in [list(base)] if scope == "global" else [[name] for name in base]:
        vectors = [np.concatenate([delta[name].ravel() for name in names]) for delta in deltas]
        if all(np.any(vector) for vector in vectors):
            wanted = expected(method, vectors)
            change = np.concatenate([(merged[name].double().numpy() - before[name]).ravel() for name in names])
            np.testing.assert_allclose(change, wanted, rtol=0, atol=1e-7)


def test_products_measured_before_give_the_same_bytes(tmp_path: Path) -> None:
    models = write_family(tmp_path, *sparse_family({"w": (200, 300)}, [0.5, 0.6]))
    overlap = measure_overlap(Family.open(*models))
    alone = merge(*models, resolve("awd"), tmp_path / "alone")
    reused = merge(*models, resolve("awd"), tmp_path / "reused", overlap=overlap)
    assert (alone.path / "model.safetensors").read_bytes() == (reused.path / "model.safetensors").read_bytes()


def test_agents_for_which_a_method_does_little_are_named(tmp_path: Path) -> None:
    base = {"w": torch.zeros(4, 4)}
    step, turned = torch.full((4, 4), 0.5), torch.full((4, 4), 0.5) * torch.tensor([1.0, -1.0]).repeat(2)
    orthogonal = write_family(tmp_path / "orthogonal", base, [{"w": step}, {"w": turned}])
    alike = write_family(tmp_path / "alike", base, [{"w": step}, {"w": 1.5 * step}])
    for method, models, sentence in (
        ("awd", orthogonal, "nothing in common"),
        ("model_stock", orthogonal, "nearly orthogonal"),
        ("karcher", alike, "point the same way"),
    ):
        heard = merge(*models, resolve(method), tmp_path / method).warnings
        assert any(sentence in warning for warning in heard), heard
    heard = merge(*orthogonal, resolve("karcher"), tmp_path / "silent").warnings
    assert not any("point the same way" in warning for warning in heard)
