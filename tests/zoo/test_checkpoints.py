"""Contract: the committed zoo matches its records: trained by RL from the base, sparse, above the floors, small."""

import json
from dataclasses import asdict

import pytest

from examples.zoo.checkpoint import CHECKPOINTS, RECORD, read_record
from examples.zoo.domains import DOMAINS
from examples.zoo.measure import accuracies, missed_floors, sparsities
from examples.zoo.pretrain import PretrainSettings
from examples.zoo.regimes import AGENTS, GrpoSettings

pytestmark = pytest.mark.long

MOST_BYTES = 16_000_000
MODELS = ("base", *DOMAINS)


@pytest.fixture(scope="module")
def scores() -> dict[str, dict[str, float]]:
    return {name: accuracies(CHECKPOINTS / name, "test") for name in MODELS}


def test_every_floor_holds_on_the_test_split(scores: dict[str, dict[str, float]]) -> None:
    assert missed_floors(scores, sparsities(CHECKPOINTS)) == []


def test_the_records_tell_the_committed_weights_sparsity() -> None:
    for name, sparsity in sparsities(CHECKPOINTS).items():
        record = read_record(CHECKPOINTS / name)
        assert {key: record[key] for key in asdict(sparsity)} == asdict(sparsity)


def test_the_records_tell_how_the_training_script_trains() -> None:
    # A seed, a rate or a number of steps that changes without a new training would leave records that are wrong.
    settings: dict[str, PretrainSettings | GrpoSettings] = {"base": PretrainSettings(), **AGENTS}
    for name in MODELS:
        record = read_record(CHECKPOINTS / name)
        assert record["settings"] == json.loads(json.dumps(asdict(settings[name])))
        assert {"seconds", "versions", "validation_accuracy"} <= record.keys()
    for name, agent in AGENTS.items():
        curve = read_record(CHECKPOINTS / name)["reward"]
        assert len(curve) == agent.steps
        first, last = curve[:5], curve[-5:]
        assert sum(last) > sum(first)


def test_together_they_are_small() -> None:
    assert sum(file.stat().st_size for file in CHECKPOINTS.rglob("*") if file.is_file()) <= MOST_BYTES
    assert all((CHECKPOINTS / name / RECORD).is_file() for name in MODELS)
