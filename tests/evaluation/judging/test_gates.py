"""Contract: a gate passes on evidence from the test split, says why in one sentence, and is checked before any work."""

import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from evaluation.judging.deciding import check_names, decide, own_code, parse_gate
from evaluation.judging.gates import GateDecision, GateOutcome
from evaluation.judging.leaderboard import CHAMPION, Champion
from evaluation.judging.rules import RULES
from evaluation.statistics import paired_difference
from rammerge.errors import InputError
from tests.evaluation.boards import SIZES, SUITES, all_results, board, model_results, result


def judge(gate: Mapping[str, Any], abilities: tuple[float, float] | None = None) -> GateOutcome:
    """The outcome of one gate for the variant `ram`, given its abilities on test."""
    results = all_results()
    if abilities is not None:
        for suite, by_split in model_results(abilities).items():
            results["ram"][suite]["test"] = by_split["test"]
    champion = Champion(name="zoo version 1", row="half")
    decision = decide(board(results, champion=champion), "ram", [parse_gate(gate)])
    assert decision.passed == decision.outcomes[0].passed
    return decision.outcomes[0]


def test_non_inferiority_is_decided_by_the_lower_limit() -> None:
    chosen = board()
    lows = {suite: chosen.compare("ram", "base").suites[suite].low for suite in SUITES}
    outcome = judge({"rule": "not_worse_than_base", "margin": 0.02})
    assert outcome.passed
    assert {suite: outcome.numbers[f"{suite}.low"] for suite in SUITES} == lows
    # As good as the base on every item: not worse by the point, but 60 items cannot show a margin of 0.02 ...
    equal = (0.2, 0.1)
    assert judge({"rule": "not_worse_than_base", "margin": 0.02, "evidence": "point"}, equal).passed
    assert not judge({"rule": "not_worse_than_base", "margin": 0.02}, equal).passed
    # ... and a margin beyond Tango's limit for no differing pair in 60 they can.
    limit = -paired_difference([0.0] * 60, [0.0] * 60).low
    assert judge({"rule": "not_worse_than_base", "margin": limit + 1e-6}, equal).passed
    assert not judge({"rule": "not_worse_than_base", "margin": limit - 1e-6}, equal).passed


def test_one_bad_suite_is_enough_to_fail() -> None:
    outcome = judge({"rule": "not_worse_than_base", "margin": 0.02, "evidence": "point"}, (0.1, 1.0))
    assert not outcome.passed
    assert "zoo_tool" in outcome.sentence
    assert outcome.numbers["zoo_tool.difference"] == pytest.approx(-0.1)


def test_every_agent_must_be_beaten() -> None:
    assert judge({"rule": "beats_every_agent"}).passed
    slightly = (0.2 + 1 / 60, 0.95)  # one item better than the agent `code` on one suite
    assert judge({"rule": "beats_every_agent", "evidence": "point"}, slightly).passed
    outcome = judge({"rule": "beats_every_agent"}, slightly)
    assert not outcome.passed
    assert "code" in outcome.sentence
    assert outcome.numbers["code.difference"] == pytest.approx(1 / 120)
    assert set(outcome.numbers) == {"tool.difference", "tool.low", "code.difference", "code.low"}
    assert not judge({"rule": "beats_every_agent", "evidence": "point"}, (0.2, 0.95)).passed


def test_a_named_model_must_be_beaten() -> None:
    assert judge({"rule": "better_than", "model": "half"}).passed
    assert not judge({"rule": "better_than", "model": "half"}, (0.7, 0.7)).passed


def test_a_score_must_be_reached() -> None:
    assert judge({"rule": "min_score", "suite": "zoo_tool", "value": 0.9}).passed
    assert not judge({"rule": "min_score", "suite": "zoo_tool", "value": 0.9, "evidence": "interval"}).passed
    assert not judge({"rule": "min_score", "suite": "zoo_tool", "value": 0.91}).passed
    assert judge({"rule": "min_score", "value": 0.9}).numbers["score"] == pytest.approx(0.9)


def test_models_asked_with_different_templates_are_not_judged() -> None:
    results = all_results()
    for name, template in {"base": "a", "tool": "a", "code": "b", "half": "a", "full": "a", "ram": "a"}.items():
        for split, found in results[name]["zoo_code"].items():
            results[name]["zoo_code"][split] = replace(found, chat_template=template)
    gates = [parse_gate({"rule": rule}) for rule in ("beats_every_agent", "not_worse_than_base")]
    refused, judged = decide(board(results), "ram", gates).outcomes
    assert not refused.passed
    assert refused.sentence == (
        "ram is not judged: ram and code were asked with different chat templates on zoo_code; give both the same "
        "template, or set apply_chat_template: false in the suite."
    )
    assert judged.passed


def test_only_test_results_count() -> None:
    results = all_results()
    for suite in SUITES:
        results["ram"][suite]["test"] = result(suite, "test", [0.0] * SIZES["test"])
    assert not decide(board(results), "ram", [parse_gate({"rule": "min_score", "value": 0.5})]).passed


def test_a_decision_needs_every_gate_and_survives_json() -> None:
    gates = [parse_gate({"rule": "beats_every_agent"}), parse_gate({"rule": "min_score", "value": 0.99})]
    decision = decide(board(), "ram", gates)
    assert [outcome.passed for outcome in decision.outcomes] == [True, False]
    assert (decision.variant, decision.passed) == ("ram", False)
    assert decide(board(), "ram", gates[:1]).passed
    assert decide(board(), "ram", []).passed
    assert GateDecision.from_json(json.loads(json.dumps(decision.to_json(), allow_nan=False))) == decision


@pytest.mark.parametrize("evidence", ["interval", "point"])
@pytest.mark.parametrize("rule", RULES)
def test_outcomes_are_one_sentence_with_the_conditions(rule: str, evidence: str) -> None:
    required: dict[str, dict[str, Any]] = {"better_than": {"model": "full"}, "min_score": {"value": 0.5}}
    sentence = judge({"rule": rule, "evidence": evidence, **required.get(rule, {})}).sentence
    assert sentence.startswith("ram ")
    assert sentence.endswith(").")
    assert "\n" not in sentence
    for part in ("95 % interval", "test items", "float32"):
        assert part in sentence


@pytest.mark.parametrize(
    ("gate", "sentence"),
    [
        (
            {"rule": "beats_all_agents"},
            r"gates\[1\]: unknown rule 'beats_all_agents' \(did you mean 'beats_every_agent'\?\)",
        ),
        ({"rule": "min_score", "valu": 0.5}, r"\(min_score\): unknown key 'valu' \(did you mean 'value'\?\)"),
        ({"rule": "min_score"}, "the key 'value' is missing"),
        ({"rule": "min_score", "value": 50}, r"value: .*at most 1, not 50"),
        ({"rule": "not_worse_than_base", "margin": -0.1}, "margin: .*at least 0"),
        ({"rule": "beats_every_agent", "evidence": "hope"}, "evidence: .*'interval' or 'point'"),
        ({}, "unknown rule 'None'"),
    ],
)
def test_bad_gates_are_refused_in_one_sentence(gate: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence) as refusal:
        parse_gate(gate, where="gates[1]")
    assert "\n" not in str(refusal.value)


def test_names_are_checked_before_any_work() -> None:
    gates = [parse_gate({"rule": "better_than", "model": "tis"})]
    with pytest.raises(InputError, match=r"better_than names the unknown model 'tis' \(did you mean 'ties'\?\)"):
        check_names(gates, models=["base", "ties"], suites=SUITES)
    gates = [parse_gate({"rule": "min_score", "value": 0.1, "suite": "zoo_tol"})]
    with pytest.raises(InputError, match=r"min_score names the unknown suite 'zoo_tol' \(did you mean 'zoo_tool'\?\)"):
        decide(board(), "ram", gates)
    with pytest.raises(InputError, match="no model 'nobody'"):
        decide(board(), "nobody", [])


CHAMPION_RULES = ("not_worse_than_champion", "better_than_champion")


def challenge(rule: str, champion: Champion | None, abilities: tuple[float, float] = (0.9, 0.9)) -> GateOutcome:
    """The outcome of one rule for the variant `ram` against a champion of these abilities."""
    results = all_results() | ({CHAMPION: model_results(abilities)} if champion and champion.row == CHAMPION else {})
    return decide(board(results, champion=champion), "ram", [parse_gate({"rule": rule})]).outcomes[0]


@pytest.mark.parametrize("rule", CHAMPION_RULES)
def test_the_first_champion_needs_no_comparison(rule: str) -> None:
    assert challenge(rule, None).passed
    assert challenge(rule, Champion(name="zoo version 1", row="ram")).passed


@pytest.mark.parametrize("rule", CHAMPION_RULES)
def test_a_worse_variant_does_not_replace_the_champion(rule: str) -> None:
    outcome = challenge(rule, Champion(name="zoo version 7", row=CHAMPION), (1.0, 1.0))
    assert not outcome.passed
    assert "zoo version 7" in outcome.sentence
    assert outcome.numbers["difference"] == pytest.approx(-0.1)


def test_an_equal_variant_is_not_worse_and_not_better() -> None:
    same = Champion(name="zoo version 7", row=CHAMPION)
    assert not challenge("better_than_champion", same).passed
    margin = {"rule": "not_worse_than_champion", "margin": 0.0, "evidence": "point"}
    results = all_results() | {CHAMPION: model_results((0.9, 0.9))}
    assert not decide(board(results, champion=same), "ram", [parse_gate(margin)]).passed
    assert decide(board(results, champion=same), "ram", [parse_gate(margin | {"margin": 0.001})]).passed
    # As with the base, as many items as here cannot show by an interval that equal models are within 0.02.
    assert not challenge("not_worse_than_champion", same).passed


@pytest.mark.parametrize("rule", CHAMPION_RULES)
def test_a_better_variant_replaces_the_champion(rule: str) -> None:
    assert challenge(rule, Champion(name="zoo version 7", row=CHAMPION), (0.2, 0.2)).passed
    # One that another variant of the same run made is looked up in that variant's row.
    outcome = challenge(rule, Champion(name="zoo version 7", row="half"))
    assert outcome.passed
    assert outcome.numbers["difference"] == pytest.approx(0.2)


@pytest.mark.parametrize("rule", CHAMPION_RULES)
def test_a_champion_without_scores_is_not_replaced_and_the_reason_is_said(rule: str) -> None:
    outcome = challenge(rule, Champion(name="zoo version 7", problem="its files are gone"))
    assert not outcome.passed
    assert outcome.sentence == "ram cannot be compared with the champion, zoo version 7: its files are gone."


OWN_GATE = """
from evaluation.judging.gates import Gate, GateOutcome

class Short(Gate):
    rule: str = "short_name"
    letters: int = 3

    def judge(self, leaderboard, variant):
        passed = len(variant) <= self.letters
        return GateOutcome(rule=self.rule, passed=passed, sentence=f"{variant} is a name.", numbers={})
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Install a package with a rule of its own, and one with something else."""
    (tmp_path / "short_rules.py").write_text(OWN_GATE)
    info = tmp_path / "short_rules-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: short-rules\nVersion: 1.0\n")
    points = "[rammerge.gates]\nshort_name = short_rules:Short\nno_rule = short_rules:GateOutcome\n"
    (info / "entry_points.txt").write_text(points)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    sys.modules.pop("short_rules", None)


@pytest.mark.usefixtures("package")
def test_an_installed_package_offers_rules() -> None:
    assert judge({"rule": "short_name"}).passed
    assert not judge({"rule": "short_name", "letters": 2}).passed
    with pytest.raises(InputError, match=r"unknown key 'leters' \(did you mean 'letters'\?\)"):
        parse_gate({"rule": "short_name", "leters": 2})
    with pytest.raises(InputError, match=r"unknown rule 'short_nam' \(did you mean 'short_name'\?\)"):
        parse_gate({"rule": "short_nam"})
    with pytest.raises(InputError, match="the rule 'no_rule' is not a subclass of"):
        parse_gate({"rule": "no_rule"})


def test_the_code_of_an_installed_rule_is_known_by_its_digest(package: Path) -> None:
    gates = [parse_gate({"rule": "short_name"}), parse_gate({"rule": "min_score", "value": 0.5})]
    before = own_code(gates)
    assert list(before) == ["short_name"]
    assert own_code(gates) == before
    (package / "short_rules.py").write_text(OWN_GATE + "# stricter\n")
    assert own_code(gates) != before
