"""Contract: training rewards answers by the domain's score, and one that was interrupted ends as if it never was.

The committed records are of trainings with the settings that the script has now.
"""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from examples.smollm2 import grpo
from examples.smollm2 import train as train_script
from examples.smollm2.domains import DOMAINS
from examples.zoo import pretrain
from examples.zoo.checkpoint import write_record
from examples.zoo.tokenizer import build_tokenizer

RECORDS = Path(grpo.__file__).parent / "records"
SETTINGS = grpo.GrpoSettings(seed=1, steps=4, prompts=2, samples=4, learning_rate=1e-3, temperature=1.0)
# A score on which a model without any training differs from answer to answer.
DOMAIN = replace(DOMAINS["sums"], score=lambda _, answer: float(len(answer) % 2), max_new_tokens=3)


def train(scratch: Path, *, until: int = SETTINGS.steps) -> tuple[list[float], dict[str, Any]]:
    """Train a tiny model, and return the rewards and the weights; it is interrupted after step `until`."""
    tokenizer = build_tokenizer()
    tokenizer.chat_template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    model = pretrain.build_model(tokenizer, seed=3)

    def report(step: int, _: grpo.Step) -> None:
        if step > until:
            raise KeyboardInterrupt

    steps = grpo.train(model, tokenizer, DOMAIN, SETTINGS, device="cpu", scratch=scratch, save_every=1, report=report)
    return [step.reward for step in steps], model.state_dict()


def test_a_training_that_was_interrupted_ends_as_if_it_never_was(tmp_path: Path) -> None:
    rewards, weights = train(tmp_path / "whole")
    assert len(rewards) == SETTINGS.steps
    assert any(0 < reward < 1 for reward in rewards)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "parts", until=2)
    rewards_again, weights_again = train(tmp_path / "parts")
    assert rewards_again == rewards
    assert all(torch.equal(weight, weights_again[name]) for name, weight in weights.items())


def test_an_agent_of_another_base_or_other_settings_is_trained_anew(tmp_path: Path) -> None:
    assert not train_script.is_finished(tmp_path, SETTINGS, "a")
    write_record(tmp_path, {"settings": asdict(SETTINGS), "sha256": {"base": "a"}})
    assert train_script.is_finished(tmp_path, SETTINGS, "a")
    assert not train_script.is_finished(tmp_path, SETTINGS, "b")
    assert not train_script.is_finished(tmp_path, replace(SETTINGS, steps=5), "a")


@pytest.mark.parametrize("domain", DOMAINS)
def test_the_records_tell_how_the_script_trains(domain: str) -> None:
    record = json.loads((RECORDS / "seed0" / f"{domain}.json").read_text(encoding="utf-8"))
    assert record["settings"] == asdict(grpo.GrpoSettings(seed=0, steps=train_script.STEPS))
    assert len(record["reward"]) == train_script.STEPS
    assert sum(record["reward"][-5:]) > 3 * sum(record["reward"][:5])
