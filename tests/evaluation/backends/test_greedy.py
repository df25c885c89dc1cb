"""Contract: an answer is the one that transformers gives to its prompt alone, whatever is asked with it."""

from typing import Any

import pytest
import torch
import transformers
from transformers import PreTrainedModel

from evaluation.backends import rows
from evaluation.backends.decoders import is_known
from evaluation.backends.endings import Endings, end_tokens
from evaluation.backends.greedy import answer
from tests.fixtures.models import KINDS

# So large that answers differ, and so few tokens that some end early.
_SIZES: dict[str, Any] = {
    "vocab_size": 24,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "head_dim": 8,
    "max_position_embeddings": 128,
    "initializer_range": 0.6,
    "eos_token_id": [1, 2, 3, 4],
    "pad_token_id": 0,
}
_MADE: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", {}),
    "shared_keys": ("Llama", {"num_key_value_heads": 2, "tie_word_embeddings": True}),
    "stretched": ("Llama", {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 100.0}}),
    "mistral": ("Mistral", {"sliding_window": None, "num_key_value_heads": 1}),
    "qwen2": ("Qwen2", {}),
    "qwen3": ("Qwen3", {"num_key_value_heads": 2}),
}
_LENGTHS = (3, 7, 1, 5, 5, 3)
_LONGEST = 10


def made(name: str, **changed: Any) -> PreTrainedModel:
    kind, settings = _MADE[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        config = getattr(transformers, f"{kind}Config")(**_SIZES | settings | changed)
        model: PreTrainedModel = getattr(transformers, f"{kind}ForCausalLM")(config).eval()
    return model


@pytest.fixture
def prompts() -> list[list[int]]:
    generator = torch.Generator().manual_seed(5)
    return [torch.randint(5, 24, (length,), generator=generator).tolist() for length in _LENGTHS]


def alone(model: PreTrainedModel, prompt: list[int]) -> list[int]:
    """Return transformers' answer, up to and with what ends it."""
    asked = torch.tensor([prompt])
    told = model.generate(asked, attention_mask=torch.ones_like(asked), max_new_tokens=_LONGEST, do_sample=False)
    found: list[int] = told[0, len(prompt) :].tolist()
    return found


@pytest.mark.parametrize("name", _MADE)
def test_each_answer_is_the_one_to_its_prompt_alone(
    name: str, prompts: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "_ROOM", 3)  # so that the cache grows
    model = made(name)
    expected = [alone(model, prompt) for prompt in prompts]
    assert len({len(each) for each in expected}) > 1, "the answers should end at different places"
    width = max(_LENGTHS)
    padded = torch.tensor([[0] * (width - len(prompt)) + prompt for prompt in prompts])
    read = []
    model.model.layers[-1].mlp.register_forward_pre_hook(lambda _, given: read.append(len(given[0])))
    told = answer(
        model,
        padded,
        (padded != 0).long(),
        length=_LONGEST,
        endings=Endings(None, [], end_tokens(model)),  # without texts nothing is decoded
        padding=0,
    )
    assert told.tolist() == [each + [0] * (told.shape[1] - len(each)) for each in expected]
    assert told.shape[1] == max(map(len, expected))
    # No token is read that no answer needs: in the last layer the last of each prompt, then one for each that goes on.
    assert read == [sum(len(each) > said for each in expected) for said in range(told.shape[1])]


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("mistral", {"sliding_window": 4}),
        ("qwen2", {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1}),
        ("llama", {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 100.0}}),
        ("llama", {"attn_implementation": "eager"}),
    ],
)
def test_a_decoder_that_attends_otherwise_is_left_to_transformers(name: str, changed: dict[str, Any]) -> None:
    assert is_known(made(name))
    assert not is_known(made(name, **changed))


@pytest.mark.parametrize("kind", ["gpt2", "moe", "vision_language", "encoder"])
def test_other_models_are_left_to_transformers(kind: str) -> None:
    assert not is_known(KINDS[kind]())


def test_a_kind_of_ones_own_is_left_to_transformers() -> None:
    own = type("LlamaForCausalLM", (transformers.LlamaForCausalLM,), {})  # someone else's, with a known name
    assert not is_known(own(transformers.LlamaConfig(**_SIZES)))
