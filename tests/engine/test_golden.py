"""Contract: every RAM variant gives the numbers of the golden fixture.

The fixture was worked out by hand and checked against the reference codes.
"""

from pathlib import Path
from typing import Any

import pytest
import torch

from rammerge.rules import resolve
from tests.engine.models import measure_overlap, merge, read, write_family

A, B = 1.0, 2.0
BASE = {"A": torch.full((6,), A), "B": torch.full((4,), B)}
DELTAS = [
    ([0.1, 0.2, 0, 0, 0.3, 5e-6], [0.4, 0, 0, 0]),
    ([0, 0.4, 0.5, 0, 0.3, 0], [0, 0.2, 0, -0.5]),
    ([0, 0, -0.1, 0, -0.9, 0], [0, 0.4, 0.6, 0]),
]
AGENTS = [{"A": A + torch.tensor(a), "B": B + torch.tensor(b)} for a, b in DELTAS]

# (method, preset, overrides) -> deltas at A[0], B[0], B[2], B[3]
Case = tuple[str, str | None, tuple[tuple[str, Any], ...]]

UNIQUE: dict[Case, tuple[float, ...]] = {
    ("ram", None, ()): (0.1, 0.4, 0.6, -0.5),
    ("ram_plus", "paper", ()): (0.11, 0.44, 0.72, -0.6),
    ("ram_plus", None, (("alpha", 1.0),)): (0.11, 0.44, 0.66, -0.55),
    ("ram_plus_soft", "paper", ()): (0.105, 0.42, 0.645, -0.54),
    ("ram_plus", None, (("scope", "tensor"),)): (0.12, 0.4, 0.66, -0.55),
    ("ram_plus", "mergekit", ()): (0.102, 0.4, 0.612, -0.51),
}


@pytest.mark.parametrize(("case", "unique"), UNIQUE.items(), ids=str)
def test_variants(tmp_path: Path, case: Case, unique: tuple[float, ...]) -> None:
    method, preset, overrides = case
    base, agents = write_family(tmp_path, BASE, AGENTS)
    report = merge(base, agents, resolve(method, preset, dict(overrides)), tmp_path / "out")
    merged = read(report.path)
    expected_a = [unique[0], 0.3, 0.2, 0.0, -0.1, 0.0]
    expected_b = [unique[1], 0.3, unique[2], unique[3]]
    torch.testing.assert_close(merged["A"] - A, torch.tensor(expected_a), atol=1e-6, rtol=0)
    torch.testing.assert_close(merged["B"] - B, torch.tensor(expected_b), atol=1e-6, rtol=0)


def test_counts_and_ratios(tmp_path: Path) -> None:
    base, agents = write_family(tmp_path, BASE, AGENTS)
    overlap = measure_overlap(base, agents)
    assert overlap.shared_and_unique() == [(2, 2), (4, 1), (3, 1)]
    assert overlap.shared_and_unique("A") == [(2, 1), (3, 0), (2, 0)]
    assert overlap.shared_and_unique("B") == [(0, 1), (1, 1), (1, 1)]
    assert [row["rho"] for row in overlap.summary().values()] == [1.0, 4.0, 3.0]


def test_an_agent_without_unique_elements_has_a_lambda(tmp_path: Path) -> None:
    # The authors' script divides by zero here. The limit of each rule is the only sensible value.
    agents = [{name: tensor.clone() for name, tensor in agent.items()} for agent in AGENTS]
    agents[1]["B"][3] = B
    base, written = write_family(tmp_path, BASE, agents)
    plus = merge(base, written, resolve("ram_plus"), tmp_path / "plus")
    soft = merge(base, written, resolve("ram_plus_soft"), tmp_path / "soft")
    assert plus.manifest.factors is not None
    assert soft.manifest.factors is not None
    assert plus.manifest.overlap is not None
    assert plus.manifest.factors["agent1"] == pytest.approx(1.2)
    assert soft.manifest.factors["agent1"] == pytest.approx(1.1)
    assert plus.manifest.overlap["agent1"]["rho"] is None
