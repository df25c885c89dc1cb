"""Contract: the recipes in examples/ are valid."""

from pathlib import Path

import pytest

from flows.run.planning import plan
from rammerge.checkpoints.family import Family
from rammerge.publishing.making import merge_family
from tasks.steps.computing import merge_options

EXAMPLES = Path(__file__).parents[3] / "examples"


def test_the_papers_recipe_is_whole_but_for_what_it_fetches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAMMERGE_HOME", str(tmp_path))
    planned = plan(EXAMPLES / "qwen2.5-7b-paper.yaml", fetch=False)
    assert list(planned.unfetched) == ["bfcl", "humaneval"]
    assert [suite.name for suite in planned.suites] == ["long_memory_chunked", "instructions"]
    assert list(planned.agents) == ["code", "tool", "memory"]
    assert {"ram", "ram_plus-paper", "ties"} <= planned.variants.keys()


def test_the_demos_recipe_is_whole() -> None:
    assert [suite.name for suite in plan(EXAMPLES / "zoo.yaml").suites] == ["zoo_tool", "zoo_code", "zoo_memory"]


def test_every_family_merges_the_demos_agents(tmp_path: Path) -> None:
    todo = plan(EXAMPLES / "zoo-families.yaml")
    family = Family.open(todo.base.source, {name: agent.source for name, agent in todo.agents.items()})
    options, digests = merge_options(todo.recipe.output, todo.recipe.compute), set()
    for name, method in todo.variants.items():
        report = merge_family(family, method.resolved(), tmp_path / name, options)
        assert (report.manifest.survival.kept_share or 0) > 0.9, name
        digests.add(report.manifest.files["model.safetensors"].sha256)
    assert len(digests) == len(todo.variants) == 7
