"""Contract: check says what the recipe's items can show, and which gates ask for more than that, before any work."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fixtures.pipeline import World


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("world"))


def check(recipe: Path, world: World) -> str:
    command = [sys.executable, "-m", "rammerge", "check", str(recipe)]
    done = subprocess.run(
        command, env=os.environ | world.environment(), capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_few_items_and_strict_gates_are_told(world: World) -> None:
    rules = ("not_worse_than_base", "not_worse_than_champion")
    gates = [{"rule": rule, "margin": 0.02} for rule in rules] + [{"rule": "min_score", "value": 0.9}]
    said = check(world.write(gates=gates), world).splitlines()
    (power,) = [line for line in said if line.startswith("power: on 10 test items a difference of ")]
    assert "points is detected with 80% power if two models differ on 10% of the items" in power
    warnings = [line for line in said if "(margin 0.02) passes only a model that gains at least" in line]
    assert [rule for rule in rules for line in warnings if f"warning: the gate {rule} " in line] == list(rules)
    assert "min_score" not in "".join(said), "without an interval a perfect model passes"


def test_a_gate_that_no_model_can_pass_is_named(world: World) -> None:
    gates = [{"rule": "min_score", "value": 0.9, "evidence": "interval"}]
    said = check(world.write(gates=gates, registry={"promote": False}), world)
    assert (
        "warning: the gate min_score asks for 0.9 on average, but a perfect score on 10 test items shows only" in said
    )
    limited = check(world.write(gates=gates, evaluation={"suites": ["./words"], "limit": 4}), world)
    assert "on 4 test items shows only" in limited
