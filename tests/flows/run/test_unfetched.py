"""Contract: check fetches no items of suites; it says what a run will fetch, and checks everything else."""

from pathlib import Path

import pytest

from evaluation.runners.rehearsal import Rehearsed
from evaluation.sandbox import finding
from flows.run.checking import _told
from flows.run.planning import plan
from rammerge.errors import InputError
from tests.fixtures.pipeline import World


def test_check_says_what_a_run_will_fetch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(tmp_path / "world")
    monkeypatch.setenv("RAMMERGE_HOME", str(world.home))
    suites = {"suites": ["zoo_tool", "humaneval"]}
    gates = [{"rule": "min_score", "value": 0.5, "suite": "humaneval"}]
    found = plan(world.write(evaluation=suites, gates=gates, registry={"promote": False}), fetch=False)
    assert [suite.name for suite in found.suites] == ["zoo_tool"]
    assert list(_told(found, Rehearsed([], {"zoo_tool": 300}, {}, {}))) == [
        "to be fetched, and checked then: the items of humaneval, 0.1 MB"
    ]
    assert not (world.home / "suites").exists()


def test_check_refuses_programs_where_no_sandbox_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(tmp_path / "world")
    monkeypatch.setenv("RAMMERGE_HOME", str(world.home))
    monkeypatch.setattr(finding, "_candidates", lambda: iter(()))
    finding.find_sandbox.cache_clear()
    with pytest.raises(InputError, match="run only in a sandbox, and this machine has none"):
        plan(world.write(evaluation={"suites": ["humaneval"]}, gates=[], registry={"promote": False}), fetch=False)
    finding.find_sandbox.cache_clear()
