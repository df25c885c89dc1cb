"""Contract of the soak's checks: each kind of loss and doubling is found, and a sound home is not accused."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.soak.invariants import Registry, broken, unfounded
from benchmarks.soak.nights import FAULTS, night


def write_model(directory: Path) -> Path:
    (directory / "model").mkdir(parents=True)
    (directory / "MLmodel").touch()
    (directory / "model" / "weights").write_text("w")
    files = {"weights": {"sha256": hashlib.sha256(b"w").hexdigest()}}
    (directory / "model" / "rammerge.json").write_text(json.dumps({"files": files}))
    return directory


@pytest.fixture
def sound(tmp_path: Path) -> Registry:
    entry = tmp_path / "store" / "gate" / "key"
    entry.mkdir(parents=True)
    (entry / "decision").write_text("d")
    files = {"decision": {"sha256": hashlib.sha256(b"d").hexdigest()}}
    (entry / ".manifest").write_text(json.dumps({"files": files}))
    versions = {number: write_model(tmp_path / f"version-{number}") for number in (1, 2)}
    return Registry(versions, {1: "a", 2: "b"}, {"champion": 2, "previous": 1}, {"r1": "k1", "r2": "k2"})


def test_a_sound_home_is_not_accused(sound: Registry, tmp_path: Path) -> None:
    assert list(broken(tmp_path, sound, sound, pruned=False)) == []
    fewer = replace(sound, versions={2: sound.versions[2]}, digests={2: "b"}, aliases={"champion": 2})
    assert list(broken(tmp_path, replace(fewer, runs={"r2": "k2"}), sound, pruned=True)) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda it: replace(it, digests={1: "a", 2: "a"}), "the content a is registered 2 times"),
        (lambda it: replace(it, runs={"r1": "k1", "r2": "k1"}), "k1 is recorded 2 times"),
        (lambda it: replace(it, runs={"r1": "k1"}), "the runs ['r2'] are lost"),
        (lambda it: replace(it, orphans=(2,)), "the run of version 2 is lost"),
        (lambda it: replace(it, versions={2: it.versions[2]}, aliases={"champion": 2}), "the versions [1] are lost"),
        (lambda it: replace(it, aliases={"champion": 3}), "champion is version 3, which does not exist"),
        (lambda it: replace(it, aliases={}), "there is no champion any more"),
    ],
)
def test_what_mlflow_lost_or_doubled_is_found(
    change: Callable[[Registry], Registry], words: str, sound: Registry, tmp_path: Path
) -> None:
    (problem,) = broken(tmp_path, change(sound), sound, pruned=False)
    assert words in problem


@pytest.mark.parametrize("harmed", ["store/gate/key/decision", "version-2/model/weights"])
@pytest.mark.parametrize("harm", [lambda file: file.unlink(), lambda file: file.write_text("x")], ids=["lost", "other"])
def test_a_file_that_differs_is_found(
    harmed: str, harm: Callable[[Path], object], sound: Registry, tmp_path: Path
) -> None:
    harm(tmp_path / harmed)
    (problem,) = broken(tmp_path, sound, sound, pruned=False)
    assert f"{tmp_path / harmed} differs" in problem


@pytest.mark.parametrize(
    ("passed", "score", "words"), [(True, 0.5, ""), (False, 0.5, "passed: False"), (True, 0.3, "scores 0.3")]
)
def test_a_champion_that_is_not_better_is_found(
    passed: bool, score: float, words: str, sound: Registry, tmp_path: Path
) -> None:
    rows = [{"name": name, "average": {"test": {"value": value}}} for name, value in (("ram", score), ("old", 0.5))]
    board = tmp_path / "board.json"
    board.write_text(json.dumps({"rows": rows, "champion": {"row": "old"}}))
    outcome = {"passed": passed, "registered": ["nightly", 2], "selected": "ram", "leaderboard_file": str(board)}
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "nightly.json").write_text(json.dumps(outcome))
    before = replace(sound, aliases={"champion": 1})
    found = " ".join(unfounded(tmp_path, "nightly", sound, before, margin=0.1))
    assert words in found and bool(words) == bool(found)


def test_every_fault_strikes_in_some_night_and_a_seed_gives_the_same_nights() -> None:
    nights = [night(0, number) for number in range(100)]
    assert {each.fault for each in nights} == set(FAULTS)
    assert nights == [night(0, number) for number in range(100)]
    assert nights != [night(1, number) for number in range(100)]
