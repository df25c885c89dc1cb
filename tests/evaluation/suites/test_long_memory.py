"""Contract of the suites of long memory: every prompt has one answer, which a reader of all notes finds.

The oracle reads the notes one after the other and knows nothing of how they were made.
"""

import re
from pathlib import Path
from typing import Any

import pytest

from evaluation.suites import Suite, load_suite
from evaluation.suites.environment import Environment
from evaluation.suites.making.memory import items


@pytest.fixture
def suite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Suite:
    monkeypatch.setenv("RAMMERGE_HOME", str(tmp_path))
    return load_suite("long_memory_short")


def answer(prompt: str) -> str:
    """Return what the notes say."""
    known: dict[str, str] = {}
    *notes, question = prompt.splitlines()
    for note in notes:
        if said := re.fullmatch(r"(?:The (?:code|balance) of )?(\w+) (?:is|is now|=) (\w+)\.?", note):
            known[said[1]] = known.get(said[2], said[2])
    names = [word for word in re.findall(r"\w+", question) if word in known]
    assert len(names) == 1
    return known[names[0]]


def test_the_notes_have_the_answer(suite: Suite) -> None:
    found = {task: file.items() for task, file in suite.task_files.items()}
    assert {task: len(of_task) for task, of_task in found.items()} == {
        "long_memory_short_validation": 96,
        "long_memory_short_test": 192,
    }
    for of_task in found.values():
        assert all(answer(item["prompt"]) == item["target"] for item in of_task)


def test_the_wanted_fact_may_be_anywhere() -> None:
    of_test = items([1000], {"test": 64, "validation": 1})["test"]
    places = [item["prompt"].rindex(item["target"]) / len(item["prompt"]) for item in of_test]
    assert min(places) < 0.2
    assert max(places) > 0.8


def test_prompts_grow_with_the_length_asked_for() -> None:
    sizes = [
        [len(item["prompt"]) for item in items([tokens], {"test": 1, "validation": 0})["test"]]
        for tokens in (1000, 2000)
    ]
    assert all(1.9 < large / small < 2.1 for small, large in zip(*sizes, strict=True))


@pytest.mark.parametrize(
    ("said", "score"),
    [("12345", 1.0), ("It is 12345.", 1.0), ("12,345", 1.0), ("12345 or 54321", 0.0), ("123456", 0.0), ("none", 0.0)],
)
def test_only_the_number_asked_for_counts(suite: Suite, said: str, score: float) -> None:
    scoring = suite.task_files["long_memory_short_test"].config["process_results"].load()
    assert scoring({"target": "12345"}, [said]) == {"acc": score}


def test_in_parts_a_memory_of_all_notes_answers_and_one_of_the_last_part_seldom_does(suite: Suite) -> None:
    whole = {item["id"]: item for file in suite.task_files.values() for item in file.items()}
    parts = load_suite("long_memory_chunked_short")
    assert parts.environment is not None
    right = {"all": 0, "last": 0}
    for item in (item for file in parts.task_files.values() for item in file.items()):
        assert "\n".join(item["parts"]) in whole[item["id"]]["prompt"]
        for keeps in right:
            right[keeps] += read(parts.environment.load()(), item, keeps) == 1.0
    assert right["all"] == 288
    assert right["last"] < 288 / 3


def read(environment: Environment, item: dict[str, Any], keeps: str) -> float | None:
    """Return the score of a reader whose memory keeps the notes of all parts, or of the last one."""
    environment.reset(item)
    told, notes = item["prompt"], ""
    for part in item["parts"]:
        assert item["question"] in told
        assert part in told
        assert notes in told
        notes = f"{notes}\n{part}" if keeps == "all" else part
        reply = environment.step(notes)
        assert reply.forget
        assert reply.score is None
        told = reply.text
    try:
        return environment.step(answer(f"{notes}\n{item['question']}")).score
    except (AssertionError, KeyError):  # the memory lacks it
        return environment.step("unknown").score
