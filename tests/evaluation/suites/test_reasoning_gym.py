"""Contract of `reasoning_gym`: the last answer counts, blanks and case aside, and only the right one."""

import pytest

from evaluation.suites import load_suite
from evaluation.suites.bundled.reasoning_gym.scoring import process_results

ITEMS = [item for task in load_suite("reasoning_gym").task_files.values() for item in task.items()]


@pytest.mark.parametrize(
    "said", ["{0}", "It is 7.\n\n**Answer:** {0}", "Answer: 1\nNo.\nAnswer:\n{0}\n", "Answer: `{0}`."]
)
def test_the_right_answer_is_right_for_every_item(said: str) -> None:
    assert [item["id"] for item in ITEMS if process_results(item, [said.format(item["target"])]) != {"acc": 1.0}] == []


@pytest.mark.parametrize("said", ["", "none", "Answer: zzz", "Answer: {0} or not", "Answer: {0}\nAnswer: zzz"])
def test_any_other_is_wrong(said: str) -> None:
    assert [item["id"] for item in ITEMS if process_results(item, [said.format(item["target"])]) != {"acc": 0.0}] == []


def test_the_first_items_are_of_all_kinds() -> None:
    kinds = [item["kind"] for item in load_suite("reasoning_gym").task_files["reasoning_gym_test"].items()]
    assert len(set(kinds[:21])) == len(set(kinds)) == 21
    assert len(kinds) == 8 * 21
