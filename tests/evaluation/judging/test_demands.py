"""Contract: a gate that no model, or no equal model, can pass on the given items is named before the run."""

from collections.abc import Iterator
from typing import Any

import pytest

from evaluation.judging.deciding import decide, parse_gate
from evaluation.judging.demands import demands
from evaluation.judging.gates import Claim, Gate
from evaluation.judging.leaderboard import Champion
from evaluation.judging.rules import RULES, MinScore
from evaluation.power import Items
from evaluation.suites import SPLITS
from rammerge.errors import InputError
from tests.evaluation.boards import SUITES, all_results, board, result

CHAMPION = Champion(name="zoo version 1", row="half")
NEEDED: dict[str, dict[str, Any]] = {"better_than": {"model": "half"}, "min_score": {"value": 0.99}}


@pytest.mark.parametrize("rule", sorted(RULES))
def test_every_rule_says_when_no_model_can_pass_it(rule: str) -> None:
    gate = parse_gate({"rule": rule, "evidence": "interval", **NEEDED.get(rule, {})})
    [found, *_] = demands([gate], {"one": Items(1), "two": Items(1)}, confidence=0.95)
    assert not found.possible
    assert found.sentence.startswith(f"the gate {rule} ")
    assert not list(demands([gate], {"one": Items(1000), "two": Items(1000)}, confidence=0.95))
    point = gate.model_copy(update={"evidence": "point"})
    assert not list(demands([point], {"one": Items(1), "two": Items(1)}, confidence=0.95))


def test_a_rule_says_what_an_equal_model_lacks() -> None:
    gate = parse_gate({"rule": "not_worse_than_base", "margin": 0.02})
    [found] = demands([gate], {"large": Items(500), "small": Items(30)}, confidence=0.95)
    assert found.possible
    assert found.sentence == (
        "the gate not_worse_than_base (margin 0.02) passes only a model that gains at least 0.133 on small and loses "
        "no item, because there are 30 test items; 189 items a suite let an equal model pass"
    )
    assert not list(demands([gate], {"large": Items(500), "small": Items(189)}, confidence=0.95))


def test_a_claim_of_a_suite_that_is_not_there_names_the_nearest() -> None:
    class Own(MinScore):
        def claims(self) -> Iterator[Claim]:
            yield Claim(of="score", limit=self.value, suites="wrods")

    with pytest.raises(InputError, match=r"claim of the gate min_score 'wrods' is unknown \(did you mean 'words'\?\)"):
        list(demands([Own(rule="min_score", value=0.5)], {"words": Items(10)}, confidence=0.95))


@pytest.mark.parametrize("rule", sorted(RULES))
@pytest.mark.parametrize("size", [1, 3, 4, 16, 60])
def test_what_is_demanded_is_what_the_gate_decides(rule: str, size: int) -> None:
    """The oracle is the gate itself, on a model that wins every item, and on one that equals the others."""
    gate = parse_gate({"rule": rule, "evidence": "interval", **NEEDED.get(rule, {})})
    found = list(demands([gate], dict.fromkeys(SUITES, Items(size)), confidence=0.95))
    assert decided(gate, size, ours=1.0) == all(demand.possible for demand in found)
    if rule.startswith("not_worse"):
        assert decided(gate, size, ours=0.0) == (not found)


def decided(gate: Gate, size: int, *, ours: float) -> bool:
    results = all_results()
    for name in results:
        score = ours if name == "ram" else 0.0
        for suite in SUITES:
            results[name][suite] = {split: result(suite, split, [score] * size) for split in SPLITS}
    return decide(board(results, champion=CHAMPION), "ram", [gate]).passed
