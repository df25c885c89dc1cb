"""Contract: the recipes in examples/ are valid once the user has supplied what they ask for."""

import shutil
from pathlib import Path

import pytest

from flows.run.planning import plan
from rammerge.errors import InputError
from tests.evaluation.made import write_suite

EXAMPLES = Path(__file__).parents[3] / "examples"


def test_the_papers_recipe_asks_for_suites_of_the_users_own(tmp_path: Path) -> None:
    recipe = Path(shutil.copy(EXAMPLES / "qwen2.5-7b-paper.yaml", tmp_path))
    with pytest.raises(InputError, match=r"evaluation\.suites\[0\]: unknown suite './suites/code'"):
        plan(recipe)
    for name in ("code", "tools", "memory"):
        write_suite(tmp_path / "suites" / name)
    planned = plan(recipe)
    assert [suite.name for suite in planned.suites] == ["code", "tools", "memory"]
    assert list(planned.agents) == ["code", "tool", "memory"]
    assert {"ram", "ram_plus-paper", "ties"} <= planned.variants.keys()


def test_the_demos_recipe_is_whole() -> None:
    assert [suite.name for suite in plan(EXAMPLES / "zoo.yaml").suites] == ["zoo_tool", "zoo_code", "zoo_memory"]
