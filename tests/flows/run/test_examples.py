"""Contract: the recipes in examples/ are valid."""

from pathlib import Path

import pytest

from flows.run.planning import plan

EXAMPLES = Path(__file__).parents[3] / "examples"


def test_the_papers_recipe_is_whole_but_for_what_it_fetches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAMMERGE_HOME", str(tmp_path))
    planned = plan(EXAMPLES / "qwen2.5-7b-paper.yaml", fetch=False)
    assert list(planned.unfetched) == ["bfcl", "humaneval"]
    assert [suite.name for suite in planned.suites] == ["long_memory", "instructions"]
    assert list(planned.agents) == ["code", "tool", "memory"]
    assert {"ram", "ram_plus-paper", "ties"} <= planned.variants.keys()


def test_the_demos_recipe_is_whole() -> None:
    assert [suite.name for suite in plan(EXAMPLES / "zoo.yaml").suites] == ["zoo_tool", "zoo_code", "zoo_memory"]
