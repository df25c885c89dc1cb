"""Greedy completions of a batch of prompts, and their accuracy."""

from collections.abc import Sequence
from typing import Any

import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from examples.zoo.domains import Domain
from examples.zoo.tokenizer import STOP


@torch.inference_mode()
def complete(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, prompts: Sequence[str], max_new_tokens: int
) -> list[str]:
    """Return the greedy completion of each prompt, up to the stop token and without it."""
    encoded = tokenizer(list(prompts), return_tensors="pt", padding=True)
    output = model.generate(
        input_ids=encoded.input_ids, attention_mask=encoded.attention_mask, max_new_tokens=max_new_tokens
    )
    texts = tokenizer.batch_decode(output[:, encoded.input_ids.shape[1] :], skip_special_tokens=True)
    return [text.partition(STOP)[0] for text in texts]


def accuracy(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, domain: Domain, docs: Sequence[dict[str, Any]]
) -> float:
    """Return the share of `docs`, which are a suite's documents, that the model's greedy completions solve."""
    completions = complete(model, tokenizer, [doc["prompt"] for doc in docs], domain.max_new_tokens)
    return sum(map(domain.score, docs, completions)) / len(docs)
