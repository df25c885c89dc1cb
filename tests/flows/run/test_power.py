"""Contract: check says what the recipe's items can show, and which gates ask for more than that, before any work."""

import os
import sys
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from evaluation.power import Items
from evaluation.runners.rehearsal import Rehearsed
from flows.cli.program import main
from flows.run.planning import plan
from flows.run.power import asked_by_gates, detectable, items_of
from tests.fixtures.pipeline import World

RULES = ("not_worse_than_base", "not_worse_than_champion")


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    world = World(tmp_path / "world")
    monkeypatch.setenv("RAMMERGE_HOME", str(world.home))
    return world


def asked(world: World, items: int, *gates: dict[str, Any]) -> list[str]:
    todo = plan(world.write(gates=list(gates), registry={"promote": False}))
    found = asked_by_gates(todo, {"words": Items(items)})
    assert asked_by_gates(todo, {"words": Items(items)}) == found
    return found


def test_check_tells_of_few_items_and_strict_gates(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = world.write(gates=[{"rule": rule, "margin": 0.02} for rule in RULES])
    # Commands set variables for the rest of their process, so all are restored.
    restored, words = patch.dict(os.environ, world.environment()), ["rammerge", "check", str(recipe)]
    with restored, patch.object(sys, "argv", words), pytest.raises(SystemExit) as exit_:
        main()
    said = capsys.readouterr().out.splitlines()
    assert exit_.value.code == 0
    (power,) = [line for line in said if line.startswith("power: on 10 test items no difference is ")]
    assert "detected with 80 % power if two models differ on 10 % of the items, and no difference if on 30 %" in power
    warnings = [line for line in said if "(margin 0.02) passes only a model that gains at least" in line]
    assert [rule for rule in RULES for line in warnings if f"warning: the gate {rule} " in line] == list(RULES)


def test_a_gate_that_no_model_can_pass_is_named(world: World) -> None:
    gate = {"rule": "min_score", "value": 0.9}
    words = "the gate min_score asks for 0.9 on average, but a perfect score on {} test items shows only "
    for items in (10, 4):
        (sentence,) = asked(world, items, gate | {"evidence": "interval"})
        assert sentence.startswith(words.format(items))
    assert asked(world, 4, gate) == [], "without an interval a perfect model passes"
    assert asked(world, 400, gate | {"evidence": "interval"}) == []


def test_without_an_evaluation_there_is_nothing_to_say(world: World) -> None:
    todo = plan(world.write(merges=["ram"], gates=None, evaluation="none", registry=None))
    assert asked_by_gates(todo, {}) == [] and not list(detectable(todo, {}))


def test_related_items_show_less(world: World) -> None:
    todo = plan(world.write(gates=[{"rule": "not_worse_than_base", "margin": 0.1}], registry={"promote": False}))
    related = items_of(Rehearsed([], {"words": 300}, {"words": [10] * 30}, {"words": 2}))
    assert related == {"words": Items(600, (20,) * 30)}
    (power,) = detectable(todo, related)
    assert power.endswith("related scores being correlated by 0.2")
    (alone,) = detectable(todo, {"words": Items(600)})
    points = [float(line.split("difference of ")[1].split()[0]) for line in (power, alone)]
    assert points[0] > 2 * points[1]
    assert asked_by_gates(todo, {"words": Items(600)}) == []
    (asked,) = asked_by_gates(todo, related)
    assert "600 test scores in 30 clusters; 35 clusters a suite let an equal model pass" in asked
