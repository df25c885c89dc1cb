"""Contract: what a recipe's words and its models' headers say against a variant is told before any work."""

from pathlib import Path

import pytest

from flows.run.planning import plan
from tests.fixtures.pipeline import World


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    world = World(tmp_path / "world")
    monkeypatch.setenv("RAMMERGE_HOME", str(world.home))
    return world


def test_a_sweep_that_the_next_step_undoes_is_told_once(world: World) -> None:
    sweep = {"method": "task_arithmetic", "sweep": {"scale": [0.3, 0.5, 1.0]}}
    assert plan(world.write(merges=[sweep], gates=[])).warnings == []
    (sentence,) = plan(world.write(merges=[{**sweep, "then": [{"svc": {"alpha": 0.1}}]}], gates=[])).warnings
    assert "takes the scale of matrices back" in sentence
