"""Contract: two models of two runs are compared on the same items, asked in the same way, or not at all."""

from dataclasses import replace
from typing import Any

import pytest

from evaluation.judging.comparable import IncomparableError
from evaluation.judging.facing import face
from evaluation.judging.leaderboard import Yardstick
from evaluation.suites import SPLITS
from rammerge.errors import InputError
from tests.evaluation.boards import all_results, board


def test_a_model_of_one_run_faces_one_of_another() -> None:
    other = board()
    faced = face(board(), "full", other, "ram", called="ram of last week")
    assert [(row.name, row.kind) for row in faced.rows] == [
        ("base", "base"),
        ("tool", "agent"),
        ("code", "agent"),
        ("ram of last week", "champion"),
        ("full", "variant"),
    ]
    assert faced.selected == "full"
    same = board().compare("full", "ram")
    (shown,) = [shown for shown in faced.comparisons if shown.role == "champion"]
    assert [difference.value for difference in shown.comparison.suites.values()] == [
        difference.value for difference in same.suites.values()
    ]
    assert (shown.comparison.average.low, shown.comparison.average.high) == (same.average.low, same.average.high)


def test_agents_face_each_other_and_the_base_is_faced() -> None:
    faced = face(board(), "tool", board(), "base", called="base of zoo")
    assert faced.names("agent") == ["code"] and faced.names("variant") == ["tool"]
    with pytest.raises(InputError, match=r"'base' is the base of its run.*name it first"):
        face(board(), "base", board(), "ram", called="ram of zoo")
    with pytest.raises(InputError, match=r"no model 'rma' \(did you mean 'ram'\?\)"):
        face(board(), "tool", board(), "rma", called="x")


def test_a_yardstick_is_faced_and_none_stays() -> None:
    results = all_results()
    measured = board({**results, "api": results["tool"]}, yardsticks={"api": Yardstick(kind="yardstick", note="x")})
    faced = face(measured, "ram", measured, "api", called="api of zoo")
    assert [row.name for row in faced.rows] == ["base", "tool", "code", "api of zoo", "ram"]
    assert faced.yardsticks == {} and {shown.role for shown in faced.comparisons} == {"base", "best_agent", "champion"}


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"suite_digest": "edited"}, r"the two runs on zoo_code \(test\) cannot be compared: the suite digest differs"),
        ({"items_digest": "other"}, "the items digest differs"),
        ({"lm_eval_version": "0.4.14"}, "the lm-eval version differs"),
        ({"decoding": "5 answers at temperature 0.7"}, "the decoding differs"),
        ({"few_shot": {"zoo_code": 3}}, "the number of few-shot examples differs"),
        ({"limit": 60}, "the limit differs"),
        ({"sandbox": "bubblewrap"}, "the sandbox differs"),
    ],
)
def test_runs_that_asked_otherwise_are_refused(changes: dict[str, Any], sentence: str) -> None:
    results = all_results()
    for by_suite in results.values():
        by_suite["zoo_code"]["test"] = replace(by_suite["zoo_code"]["test"], **changes)
    with pytest.raises(InputError, match=sentence):
        face(board(), "ram", board(results), "ram", called="before")


def test_other_templates_and_other_suites_are_refused() -> None:
    results = {template: all_results() for template in ("a", "b")}
    for template, models in results.items():
        for split in SPLITS:
            models["ram"]["zoo_code"][split] = replace(models["ram"]["zoo_code"][split], chat_template=template)
    with pytest.raises(IncomparableError, match="asked with different chat templates on zoo_code"):
        face(board(results["a"]), "ram", board(results["b"]), "ram", called="before")
    fewer = {name: {"zoo_code": by_suite["zoo_code"]} for name, by_suite in all_results().items()}
    with pytest.raises(InputError, match="one was evaluated on zoo_tool, zoo_code, the other on zoo_code"):
        face(board(), "ram", board(fewer), "ram", called="before")
