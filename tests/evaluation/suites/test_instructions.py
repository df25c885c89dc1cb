"""Contract of `instructions`: each rule tells answers that follow it from others, and prompts state their rules."""

from pathlib import Path
from typing import Any

import pytest

from evaluation.suites import load_suite
from evaluation.suites.bundled.instructions.scoring import RULES, process_results

TWO = "One is here. Two is there!"

CASES: list[tuple[str, dict[str, Any], str, bool]] = [
    ("at_least", {"count": 6}, TWO, True),
    ("at_least", {"count": 7}, TWO, False),
    ("at_most", {"count": 6}, TWO, True),
    ("at_most", {"count": 5}, TWO, False),
    ("at_most", {"count": 2}, "Don't well-known", True),
    ("sentences", {"count": 2}, TWO, True),
    ("sentences", {"count": 1}, TWO, False),
    ("sentences", {"count": 2}, "One?! And two without an end", True),
    ("paragraphs", {"count": 2}, "a\nb\n\n\nc", True),
    ("paragraphs", {"count": 2}, "a\nb", False),
    ("bullets", {"count": 2}, "Here:\n- a\n  - b", True),
    ("bullets", {"count": 2}, "- a\n-b", False),
    ("numbered", {"count": 2}, "1. a\n2. b", True),
    ("numbered", {"count": 2}, "1. a\n1. b", False),
    ("json", {"keys": ["b", "a"]}, '{"a": 1, "b": [2]}', True),
    ("json", {"keys": ["a"]}, '```json\n{"a": 1}\n```', True),
    ("json", {"keys": ["a"]}, 'Sure: {"a": 1}', False),
    ("json", {"keys": ["a"]}, '{"a": 1, "b": 2}', False),
    ("json", {"keys": ["a"]}, "[" * 100_000, False),
    ("lower", {}, "all small, 1.", True),
    ("lower", {}, "Not", False),
    ("lower", {}, "12", False),
    ("upper", {}, "ALL LARGE", True),
    ("upper", {}, "NOt", False),
    ("no_comma", {}, "a b", True),
    ("no_comma", {}, "a, b", False),
    ("word", {"word": "small", "count": 2}, "Small things are small.", True),
    ("word", {"word": "small", "count": 2}, "Smaller things are small.", False),
    ("without", {"word": "the"}, "There they are", True),
    ("without", {"word": "the"}, "The end", False),
    ("begins", {"words": "In short"}, "IN SHORT, yes", True),
    ("begins", {"words": "In short"}, "Well, in short", False),
    ("ends", {"words": "and that is all"}, "x And that is all.", True),
    ("ends", {"words": "and that is all"}, "and that is all. Bye", False),
    ("quoted", {}, '"a"', True),
    ("quoted", {}, '"a', False),
    ("title", {}, "<<My day>>\nx", True),
    ("title", {}, "<<>> My day", False),
    ("blanks", {"count": 2}, "[a] and [b]", True),
    ("blanks", {"count": 2}, "[a] and [a]", False),
]


@pytest.mark.parametrize(("rule", "values", "answer", "followed"), CASES)
def test_a_rule_tells_who_follows_it(rule: str, values: dict[str, Any], answer: str, followed: bool) -> None:
    doc = {"rules": [{"rule": rule, "values": values}]}
    assert process_results(doc, [f"\n {answer} "]) == {"acc": float(followed), "all": float(followed)}


def test_every_rule_was_tried_both_ways() -> None:
    assert {(rule, followed) for rule, _, _, followed in CASES} == {
        (rule, each) for rule in RULES for each in (True, False)
    }


def test_the_score_is_the_share_of_rules_that_are_followed() -> None:
    doc = {"rules": [{"rule": "no_comma", "values": {}}, {"rule": "lower", "values": {}}]}
    assert process_results(doc, ["No"]) == {"acc": 0.5, "all": 0.0}
    assert process_results(doc, [" "]) == {"acc": 0.0, "all": 0.0}


def test_prompts_state_their_rules_and_topics_lie_in_one_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAMMERGE_HOME", str(tmp_path))
    suite = load_suite("instructions")
    found = {split: suite.task_files[tasks[0]].items() for split, tasks in suite.tasks.items()}
    assert {split: len(of_split) for split, of_split in found.items()} == {"validation": 85, "test": 165}
    for item in (item for of_split in found.values() for item in of_split):
        assert item["prompt"].endswith(item["target"])
        assert 1 <= len(item["rules"]) <= 3
        assert item["topic"] in item["prompt"]
    used = {rule["rule"] for of_split in found.values() for item in of_split for rule in item["rules"]}
    assert used == set(RULES)
