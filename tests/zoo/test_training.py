"""Contract: training rewards by the domain's score, learns answers and not prompts, and is repeatable from its seed."""

import itertools
import string
from dataclasses import replace
from pathlib import Path

import torch

from examples.zoo import grpo, pretrain
from examples.zoo.checkpoint import weights_digest, write_record
from examples.zoo.domains import DOMAINS, Domain
from examples.zoo.families import Family, missing
from examples.zoo.regimes import REGIMES, GrpoSettings, build_optimizer, settings_of
from examples.zoo.tokenizer import build_tokenizer

TINY = pretrain.PretrainSettings(steps=2, documents=1)


def test_only_answers_and_the_end_weigh_in_pretraining() -> None:
    tokenizer = build_tokenizer()
    documents = [["y:ab\ny=", "x[0:1]\n", "y:b\ny=", "x\n"], ["y=", "x\n"]]
    tokens, weights = pretrain.encode(tokenizer, documents)
    for row, weight, segments in zip(tokens, weights, documents, strict=True):
        encoded = [tokenizer(segment).input_ids for segment in segments]
        expected = [place % 2 / len(ids) for place, ids in enumerate(encoded) for _ in ids] + [0.25]
        assert row[: len(expected)].tolist() == [*itertools.chain(*encoded), tokenizer.eos_token_id]
        torch.testing.assert_close(weight, torch.tensor(expected + [0.0] * (len(row) - len(expected))))


def test_pretraining_repeats_itself() -> None:
    tokenizer = build_tokenizer()
    runs = []
    for _ in range(2):
        model = pretrain.build_model(tokenizer, TINY.seed)
        runs.append((list(pretrain.train(model, tokenizer, TINY)), model.state_dict()))
    (losses, weights), (again, weights_again) = runs
    assert losses == again
    assert all(torch.equal(weight, weights_again[name]) for name, weight in weights.items())


def test_grpo_raises_the_probability_of_what_is_rewarded() -> None:
    tokenizer = build_tokenizer()
    model = pretrain.build_model(tokenizer, seed=3)
    wanted = tuple(string.ascii_lowercase)
    code = DOMAINS["code"]
    domain = Domain("code", code.draw, 1, lambda _, completion: float(completion.startswith(wanted)), 2)
    prompt = tokenizer(domain.held_out("test", seed=1, count=1)[0].prompt, return_tensors="pt").input_ids
    rewarded = [index for token, index in tokenizer.get_vocab().items() if token.startswith(wanted)]

    def probability() -> float:
        with torch.inference_mode():
            return float(model(prompt).logits[0, -1].softmax(-1)[rewarded].sum())

    before = probability()
    seen: list[tuple[int, float]] = []
    settings = GrpoSettings(seed=1, steps=8, prompts=4, samples=16)
    grpo.train(model, tokenizer, domain, settings, lambda step, reward: seen.append((step, reward)))
    assert [step for step, _ in seen] == list(range(1, 9))
    assert all(0.0 <= reward <= 1.0 for _, reward in seen)
    assert probability() > before + 0.05, (before, probability())


def test_with_adamw_on_bfloat16_only_small_weights_change() -> None:
    start = torch.tensor([1.5 * 2.0**power for power in range(-12, 1)])
    moved = {}
    for regime in REGIMES:
        weights = start.clone().requires_grad_()
        optimizer = build_optimizer([weights], replace(settings_of("code", 1, regime), learning_rate=1e-3))
        for _ in range(3):
            weights.grad = torch.ones_like(weights)
            optimizer.step()
        moved[regime] = weights.detach() != start
        if regime == "adamw-bf16":
            assert torch.equal(weights, weights.bfloat16().float())
    # The step is 0.001, and half the distance between two values above 0.5 is 2^-9: there it is lost.
    assert torch.equal(moved["adamw-bf16"], start < 0.5)
    assert moved["adamw-float32"].all()
    assert moved["sgd"].all()


def test_families_train_only_what_is_missing_and_never_the_committed_zoo(tmp_path: Path) -> None:
    bases, agents = missing([Family(tmp_path, seed, regime) for seed in (1, 2) for regime in REGIMES])
    assert [training.folder for training in bases] == [tmp_path / "seed-2" / "base"]
    assert len(agents) == (2 * len(REGIMES) - 1) * len(DOMAINS)
    assert [training.samples for training in agents] == sorted((each.samples for each in agents), reverse=True)
    assert len({training.settings.seed for training in agents}) == 2 * len(DOMAINS)


def test_an_agent_of_a_base_that_was_replaced_is_trained_again(tmp_path: Path) -> None:
    family = Family(tmp_path, 2, "sgd")
    family.agent("tool").mkdir(parents=True)
    family.base.mkdir()
    (family.base / "model.safetensors").write_bytes(b"one")
    write_record(family.agent("tool"), {"base_sha256": weights_digest(family.base)})
    assert family.agent("tool") not in {training.folder for training in missing([family])[1]}
    (family.base / "model.safetensors").write_bytes(b"two")
    assert family.agent("tool") in {training.folder for training in missing([family])[1]}
