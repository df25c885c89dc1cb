"""Contract: a change of the champion says who made it, when and why, and what the new champion does differently.

The scores of two versions are compared on the same items, or not at all.
"""

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from evaluation.judging.building import build_leaderboard
from evaluation.judging.leaderboard import Champion, Leaderboard
from tasks.records import promotion, registry
from tasks.records.differences import differences
from tasks.records.history import Reason, read_history
from tasks.records.regression import regressions
from tests.evaluation.boards import AGENTS, VARIANTS, all_results, model_results
from tests.tasks.records.made import register

RAM = {"rammerge.variant": "ram", "rammerge.gates": "passed", "rammerge.source.tool": "org/tool@1 sha256:aa"}
HALF = {"rammerge.variant": "half", "rammerge.gates": "refused: half is bad.", "rammerge.source.tool": "t sha256:bb"}


def board() -> Leaderboard:
    return build_leaderboard(all_results(), base="base", agents=AGENTS, variants=VARIANTS)


@pytest.fixture(scope="module", autouse=True)
def versions(model: Path, place: Path) -> None:
    """`differ` has the version 1 by `ram` and the worse version 2 by `half`; version 3 was never evaluated."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAMMERGE_HOME", str(place))
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{place / 'mlflow.db'}")
        register("differ", model, "one", place, board=board(), params={"method": "ram"}, tags=RAM)
        made = {"method": "task_arithmetic", "method.scale": "0.5"}
        register("differ", model, "two", place, board=board(), params=made, tags=HALF)
        register("differ", model, "three", place)


def test_two_versions_differ_in_what_they_are_made_of_and_on_the_same_items() -> None:
    first, second = (registry.get_release("differ", version) for version in (1, 2))
    found = differences(first, second)
    assert {change.what: (change.before, change.after) for change in found.changes} == {
        "variant": ("ram", "half"),
        "method": ("ram", "task_arithmetic"),
        "method.scale": (None, "0.5"),
        "agent tool": ("org/tool@1 sha256:aa", "t sha256:bb"),
    }
    assert [scored.suite for scored in found.scores] == ["zoo_tool", "zoo_code", "average"]
    expected = board().compare("half", "ram")
    assert found.average == expected.average and found.problem is None
    assert [scored.difference for scored in found.scores[:-1]] == list(expected.suites.values())
    assert differences(second, first).average == board().compare("ram", "half").average


def test_scores_of_different_items_are_not_compared(model: Path, place: Path) -> None:
    results = all_results()
    for of_model in results.values():
        for suite, splits in of_model.items():
            of_model[suite] = {split: replace(each, items_digest="others") for split, each in splits.items()}
    other = build_leaderboard(results, base="base", agents=AGENTS, variants=VARIANTS)
    release = register("others", model, "one", place, board=other, tags=RAM)
    found = differences(registry.get_release("differ", 1), release)
    assert found.average is None and found.problem and "items digest differs" in found.problem
    unevaluated = differences(registry.get_release("differ", 1), registry.get_release("differ", 3))
    assert unevaluated.problem == "there are no scores of version 3, so nothing says which is better"


def test_a_promotion_by_hand_records_who_and_why_and_warns() -> None:
    promotion.promote("differ", 1, reason=Reason(by="ann", because="the first"))
    moved = promotion.promote("differ", 2, reason=Reason(by="bob", because="to try: it"), by_hand=True)
    assert moved.cautions == (
        "the gates refused version 2: half is bad.",
        "version 2 scored worse than the champion before it",
    )
    (event,) = read_history(registry.get_release("differ", 2).tags)
    assert (event.what, event.by, event.because, event.instead_of) == ("promoted", "bob", "to try: it", 1)
    assert event.difference == moved.difference and "method: ram -> task_arithmetic" in event.difference
    assert event.sentence.endswith("by bob: to try: it")
    promotion.rollback("differ", reason=Reason(by="ann", because="worse"))
    told = {version: read_history(registry.get_release("differ", version).tags) for version in (1, 2)}
    assert [(each.what, each.by, each.because) for each in told[2]] == [
        ("promoted", "bob", "to try: it"),
        ("rolled back", "ann", "worse"),
    ]
    assert [(each.what, each.because) for each in told[1]] == [("promoted", "the first"), ("promoted", "worse")]


def test_the_command_shows_the_differences_and_the_last_event(capsys: pytest.CaptureFixture[str]) -> None:
    from flows.cli.releasing import releases

    releases("differ", diff=(1, 2))
    shown = capsys.readouterr().out
    assert "task_arithmetic" in shown and "average" in shown and "95 % interval" in shown
    releases("differ", diff=None)
    assert "version 2: rolled back on " in capsys.readouterr().out


def test_a_version_that_is_made_again_tells_of_the_last_run(model: Path, place: Path) -> None:
    again = register("differ", model, "two", place, tags={"rammerge.gates": "passed"})
    assert again.version == 2 and registry.get_release("differ", 2).tags["rammerge.gates"] == "passed"


def test_what_has_become_worse_is_told_only_when_the_interval_shows_it() -> None:
    served = Champion(name="differ version 1", row="ram")
    made = partial(build_leaderboard, base="base", agents=AGENTS)
    assert regressions("differ", 1, made(all_results(), variants=VARIANTS, champion=served)) == []
    worse = all_results() | {"ram": model_results((0.3, 0.3))}
    told = regressions("differ", 1, made(worse, variants={"ram": "ram"}, champion=served))
    assert len(told) == 1 and told[0].startswith("differ version 1 scores worse than when it was promoted: ")
    others = {name: method for name, method in VARIANTS.items() if name != "ram"}
    found = all_results() | {"champion": all_results()["ram"]}
    (sentence,) = regressions(
        "differ", 1, made(found, variants=others, champion=served.model_copy(update={"row": "champion"}))
    )
    assert sentence.startswith("the best variant, full, is worse than differ version 1: the difference on average is -")
