"""Contract: the methods of the RAM family say, with the reason, which agents they do not fit; other methods do not."""

from pathlib import Path

import pytest
import torch

from rammerge.rules import resolve
from tests.engine.models import Models, measure_overlap, merge, write_family


def family(root: Path, *shares: tuple[float, float]) -> Models:
    """Agents that changed the elements in [from, to) of a base, as shares of its length."""
    base = {"w": torch.zeros(1000)}
    agents = []
    for index, (start, stop) in enumerate(shares):
        agent = base["w"].clone()
        agent[int(1000 * start) : int(1000 * stop)] = index + 1.0
        agents.append({"w": agent})
    return write_family(root, base, agents)


def said(models: Models, out: Path, method: str) -> list[str]:
    return [warning for warning in merge(*models, resolve(method), out).warnings if "compare with" in warning]


@pytest.mark.parametrize("method", ["ram", "ram_plus", "ram_plus_soft"])
def test_a_dense_agent_and_one_without_unique_changes(tmp_path: Path, method: str) -> None:
    models = family(tmp_path, (0.0, 0.7), (0.1, 0.5))
    dense, shared = said(models, tmp_path / "out", method)
    assert "agent 'agent0' changed 70% of the weights: RAM expects sparse updates" in dense
    assert "agent 'agent1' shares all but 0.0% of its changes" in shared
    assert measure_overlap(*models).warnings() == [dense, shared]


def test_sparse_agents_are_fine(tmp_path: Path) -> None:
    models = family(tmp_path, (0.0, 0.6), (0.5, 0.7))
    assert said(models, tmp_path / "out", "ram") == []
    assert measure_overlap(*models).warnings() == []


def test_a_single_agent_has_nothing_to_share(tmp_path: Path) -> None:
    assert said(family(tmp_path, (0.0, 0.5)), tmp_path / "out", "ram") == []


@pytest.mark.parametrize("method", ["average", "task_arithmetic", "ties"])
def test_other_methods_expect_nothing_of_density(tmp_path: Path, method: str) -> None:
    assert said(family(tmp_path, (0.0, 0.9), (0.0, 0.9)), tmp_path / "out", method) == []
