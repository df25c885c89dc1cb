"""Contract: what holds for a method whatever the numbers: order, scale, idle agents, and settings that drop nothing."""

from pathlib import Path
from typing import Any

import pytest
import torch

from rammerge.rules import resolve
from tests.engine.models import merge, read, sparse_family, write_family

SHAPES = {"embed.weight": (40, 16), "layer.weight": (24, 24), "norm.weight": (24,), "scalar": ()}
Settings = tuple[str, dict[str, Any]]
METHODS: list[Settings] = [
    ("linear", {}),
    ("breadcrumbs", {"drop_smallest": 0.5, "drop_largest": 0.1}),
    ("dare_magnitude", {"rescale": True}),
    ("localize_and_stitch", {"density": 0.3}),
    ("consensus", {}),
    ("ram_ties", {"epsilon": 0.0, "drop_rate": 0.4}),
    ("sce", {}),
    ("sce", {"select": 0.4}),
    ("della", {}),
    ("della", {"merge": "sum"}),
    ("ram_plus", {"epsilon": 0.0, "shared_exponent": 0.5, "conflict_exponent": 0.2}),
]
Vectors = list[dict[str, torch.Tensor]]


def vectors(count: int) -> Vectors:
    return sparse_family(SHAPES, [0.7] * count, dtype=torch.float32)[1]


def updates(root: Path, taus: Vectors, method: Settings, names: list[str] | None = None) -> dict[str, torch.Tensor]:
    """Merge agents into a base of zeros, so that they are their task vectors."""
    base, agents = write_family(root, {name: torch.zeros(shape) for name, shape in SHAPES.items()}, taus)
    ordered = {name: agents[name] for name in names or agents}
    return read(merge(base, ordered, resolve(method[0], None, method[1]), root / "out").path)


def same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(values, right[name]) for name, values in left.items())


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_the_order_of_two_agents_does_not_matter(tmp_path: Path, method: Settings) -> None:
    taus = vectors(2)
    forward = updates(tmp_path / "forward", taus, method)
    assert same(forward, updates(tmp_path / "backward", taus, method, ["agent1", "agent0"]))


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_larger_changes_make_a_larger_change(tmp_path: Path, method: Settings) -> None:
    taus = vectors(3)
    small = updates(tmp_path / "small", taus, method)
    large = updates(tmp_path / "large", [{name: tau * 2.0**9 for name, tau in each.items()} for each in taus], method)
    assert same(large, {name: values * 2.0**9 for name, values in small.items()})


@pytest.mark.parametrize(
    "method", [(name, params) for name, params in METHODS if name != "linear" and "select" not in params], ids=str
)
def test_an_agent_that_did_nothing_changes_nothing(tmp_path: Path, method: Settings) -> None:
    taus = vectors(3)
    # It changed one tensor, for a copy of the base is no agent.
    idle = {name: taus[0][name] if name == "scalar" else torch.zeros_like(tau) for name, tau in taus[0].items()}
    without, together = updates(tmp_path / "without", taus, method), updates(tmp_path / "with", [*taus, idle], method)
    if method[0] == "localize_and_stitch":  # its regions are of the whole model, and a region of zeros has no weight
        together["scalar"] = without["scalar"]
    assert all(torch.equal(values, together[name]) for name, values in without.items() if name != "scalar")


@pytest.mark.parametrize(
    "method",
    [
        ("breadcrumbs", {"drop_smallest": 0.0, "drop_largest": 0.0}),
        ("dare_magnitude", {"drop_rate": 0.0}),
        ("consensus", {"agreeing": 1, "selectivity": 0.0}),
        ("della", {"drop_rate": 0.0, "window": 0.0, "merge": "sum"}),
        ("ram_plus", {"epsilon": 0.0, "shared_exponent": 0.0, "r": 0.0}),
    ],
    ids=str,
)
def test_a_method_that_drops_nothing_is_task_arithmetic(tmp_path: Path, method: Settings) -> None:
    taus = vectors(3)
    found = updates(tmp_path / "found", taus, method)
    assert same(found, updates(tmp_path / "added", taus, ("task_arithmetic", {})))


@pytest.mark.parametrize(
    "method",
    [
        ("linear", {}),
        ("localize_and_stitch", {"density": 1.0}),
        ("consensus", {}),
        ("sce", {}),
        ("ram_ties", {"epsilon": 0.0}),
    ],
    ids=str,
)
def test_a_single_agent_comes_back(tmp_path: Path, method: Settings) -> None:
    (tau,) = vectors(1)
    assert same(updates(tmp_path / "found", [tau], method), tau)
