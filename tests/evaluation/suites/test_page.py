"""Contract: the suite that docs/suites.md shows file by file is a suite, and a model can be evaluated on it."""

import re
from pathlib import Path
from typing import Any

import pytest

from evaluation.runners.harness import evaluate_model
from evaluation.suites import Suite, load_suite
from evaluation.suites.environment import Environment, Reply
from evaluation.suites.format import SuiteFile
from tests.evaluation.made import write_model

PAGE = (Path(__file__).parents[3] / "docs" / "suites.md").read_text("utf-8")


@pytest.fixture
def suite(tmp_path: Path) -> Suite:
    folder = tmp_path / "sums"
    folder.mkdir()
    for name, content in re.findall(r"<!-- file: (\S+) -->\n```\w+\n(.*?)```", PAGE, flags=re.DOTALL):
        (folder / name).write_text(content)
    return load_suite(folder)


def test_the_page_shows_every_file_of_the_suite(suite: Suite) -> None:
    tree = PAGE.partition("```\nsums/\n")[2].partition("```")[0]
    assert {line.split()[0] for line in tree.splitlines()} == {file.name for file in suite.path.iterdir()}


def test_the_page_explains_every_key() -> None:
    keys = PAGE.partition("| key | |\n| --- | --- |\n")[2].partition("\n\n")[0]
    assert set(re.findall(r"^\| `(\w+)`", keys, flags=re.MULTILINE)) == set(SuiteFile.model_fields)


def test_the_suite_of_the_page_can_be_evaluated(suite: Suite, tmp_path: Path) -> None:
    results = evaluate_model(write_model(tmp_path / "model"), [suite])
    assert {split: list(result.scores) for (_, split), result in results.items()} == {
        "validation": ["v1", "v2"],
        "test": ["t1", "t2", "t3"],
    }


def test_the_scoring_of_the_page_tells_right_from_wrong(suite: Suite) -> None:
    task = suite.task_files["sums_test"]
    score = task.config["process_results"].load()
    item = task.items()[0]
    assert score(item, [" 7"]) == {"acc": 1.0}
    assert score(item, ["8"]) == {"acc": 0.0}


def test_the_environment_of_the_page_is_one() -> None:
    names: dict[str, Any] = {}
    exec(PAGE.partition("<!-- world -->\n```python\n")[2].partition("```")[0], names)
    lights: Environment = names["Lights"]()
    lights.reset({"lamps": ["red", "green"]})
    assert [lights.step("red "), lights.step("green")] == [
        Reply("1 lamps are off."),
        Reply("0 lamps are off.", score=1),
    ]
