"""Contract: a model that generates does less work and gives the same answers; other questions are untouched."""

import pytest
import torch
from transformers import PreTrainedModel

from evaluation.backends.generating import last_position_only
from tests.fixtures.models import KINDS

PROMPTS = torch.tensor([[3, 4, 5, 6, 7], [0, 0, 8, 9, 3], [0, 5, 4, 3, 9]])
MASK = (PROMPTS != 0).long()


def made(kind: str) -> PreTrainedModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model: PreTrainedModel = KINDS[kind]().eval()
    return model


def answers(model: PreTrainedModel) -> list[list[int]]:
    settings = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 0}
    told: list[list[int]] = model.generate(PROMPTS, attention_mask=MASK, **settings).tolist()
    return told


@pytest.mark.parametrize(("kind", "read"), [("llama", 1), ("qwen2", 1), ("gpt2", None)])
def test_the_answers_are_the_same_and_known_layers_read_one_position(kind: str, read: int | None) -> None:
    model, seen = made(kind), []
    before = answers(model)
    logits = model(PROMPTS).logits
    if read:
        model.model.layers[-1].mlp.register_forward_pre_hook(lambda _, given: seen.append(given[0].shape[1]))
    with last_position_only(model):
        assert answers(model) == before
    assert set(seen) == ({read} if read else set())
    assert torch.equal(model(PROMPTS).logits, logits)  # of all positions, as scores of given answers need
