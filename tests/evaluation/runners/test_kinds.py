"""Contract: merges of every kind of model that transformers runs on text are scored as the model itself answers."""

import json
import shutil
import string
from pathlib import Path

import pytest
import torch
import transformers
from transformers import PreTrainedModel, PreTrainedTokenizerBase

import rammerge
from evaluation.backends.transformers import load, try_out
from evaluation.runners.harness import evaluate_model
from evaluation.suites import load_suite
from rammerge.errors import InputError
from tests.evaluation.made import write_suite, write_tokenizer
from tests.fixtures.models import edit_config, edit_tensors, save_agents, save_model

KINDS = {
    "llama": transformers.LlamaForCausalLM,
    "moe": transformers.MixtralForCausalLM,
    "vision_language": transformers.Qwen2VLForConditionalGeneration,
    "t5": transformers.T5ForConditionalGeneration,
    "bart": transformers.BartForConditionalGeneration,
}


def write(directory: Path, kind: str) -> Path:
    """Write a model of a kind whose answers differ between prompts, with a tokenizer."""
    save_model(directory, kind, dtype=torch.float32)
    edit_tensors(directory, lambda tensors: [t.mul_(0 if name.endswith("bias") else 20) for name, t in tensors.items()])
    write_tokenizer(directory, characters=string.printable[:92])
    return directory


def answer(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompt: str) -> str:
    """Return six tokens, the likeliest after the prompt, up to an "f" or the end."""
    encoded = tokenizer(prompt, return_tensors="pt").input_ids
    seq2seq = model.config.is_encoder_decoder
    said = torch.tensor([[model.config.decoder_start_token_id]]) if seq2seq else encoded
    begun = said.shape[1]
    for _ in range(6):
        inputs = {"input_ids": encoded, "decoder_input_ids": said} if seq2seq else {"input_ids": said}
        with torch.no_grad():
            token = model(**inputs, use_cache=False).logits[0, -1].argmax()
        said = torch.cat([said, token.view(1, 1)], dim=1)
        if token == tokenizer.eos_token_id:
            break
    return str(tokenizer.decode(said[0, begun:], skip_special_tokens=True)).partition("f")[0]


@pytest.mark.parametrize("kind", KINDS)
def test_a_merge_is_scored_by_what_its_own_class_answers(kind: str, tmp_path: Path) -> None:
    base = write(tmp_path / "base", kind)
    agents = save_agents(base, tmp_path, {"one": 0.2, "two": 0.4})
    merged = rammerge.merge(base, agents, method="average", out=tmp_path / "merged").path
    assert try_out(merged, device="cpu")[1]

    suite = load_suite(write_suite(tmp_path / "words", sizes=(1, 6)))
    evaluate_model(merged, [suite], splits=["test"], batch_size=4, out=tmp_path / "out")
    model = KINDS[kind].from_pretrained(merged, dtype=torch.float32).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(merged)
    samples = [json.loads(line) for line in (tmp_path / "out" / "words" / "test.jsonl").read_text().splitlines()]
    assert len(samples) == 6
    for sample in samples:
        assert sample["completion"] == answer(model, tokenizer, sample["prompt"])
    assert len({sample["completion"] for sample in samples}) > 1


@pytest.mark.parametrize("kind", ["t5", "vision_language"])
def test_choices_are_scored_too(kind: str, tmp_path: Path) -> None:
    suite = load_suite(write_suite(tmp_path / "choice", kind="choice", sizes=(1, 3)))
    result = evaluate_model(write(tmp_path / "model", kind), [suite], splits=["test"])["choice", "test"]
    assert set(result.scores.values()) <= {0.0, 1.0}


def test_a_model_that_cannot_be_asked_is_refused_before_its_weights_are_read(tmp_path: Path) -> None:
    model = save_model(tmp_path / "model", "encoder")
    (model / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"can be merged but not evaluated: BertForMaskedLM .* evaluation: none"):
        load(model, dtype="float32", device="cpu")


@pytest.mark.parametrize("kind", ["encoder", "diffusion"])
def test_a_model_that_cannot_be_asked_is_tried_by_its_own_class_and_weights(kind: str, tmp_path: Path) -> None:
    model = save_model(tmp_path / "model", kind)
    assert try_out(model, device="cpu") == ("", True)
    unknown = shutil.copytree(model, tmp_path / "unknown")
    edit_config(unknown, architectures=["OwnModel"], model_type="own")
    assert try_out(unknown, device="cpu") == ("", True)
    for each in (model, unknown):
        edit_tensors(each, lambda tensors: next(iter(tensors.values())).view(-1)[3:4].fill_(float("nan")))
        assert try_out(each, device="cpu") == ("", False)
    edit_tensors(model, lambda tensors: tensors.pop(sorted(tensors)[-1]))
    with pytest.raises(InputError, match="would be filled at random"):
        try_out(model, device="cpu")


def test_weights_that_are_missing_are_not_filled_at_random(tmp_path: Path) -> None:
    model = write(tmp_path / "model", "llama")
    edit_tensors(model, lambda tensors: tensors.pop("lm_head.weight"))
    edit_config(model, tie_word_embeddings=False)
    with pytest.raises(InputError, match=r"lacks the weights lm_head\.weight, which would be filled at random"):
        try_out(model, device="cpu")
