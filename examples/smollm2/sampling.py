"""Greedy answers of a model to a batch of prompts, and their accuracy."""

from collections.abc import Sequence

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from examples.smollm2.domains import Doc, Domain

BATCH = 50


@torch.inference_mode()
def answers(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str], max_new_tokens: int
) -> list[str]:
    """Return the greedy answer to each prompt, asked through the chat template."""
    texts = [
        tokenizer.apply_chat_template([{"role": "user", "content": prompt}], add_generation_prompt=True, tokenize=False)
        for prompt in prompts
    ]
    encoded = tokenizer(texts, return_tensors="pt", padding=True, padding_side="left", add_special_tokens=False)
    output = model.generate(**encoded.to(model.device), max_new_tokens=max_new_tokens, do_sample=False)
    said: list[str] = tokenizer.batch_decode(output[:, encoded.input_ids.shape[1] :], skip_special_tokens=True)
    return said


def accuracy(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, domain: Domain, docs: Sequence[Doc]) -> float:
    """Return the share of `docs` that the model's greedy answers solve."""
    solved = 0.0
    for start in range(0, len(docs), BATCH):
        batch = docs[start : start + BATCH]
        said = answers(model, tokenizer, [doc["prompt"] for doc in batch], domain.max_new_tokens)
        solved += sum(map(domain.score, batch, said))
    return solved / len(docs)
