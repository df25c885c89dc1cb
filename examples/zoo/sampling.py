"""Greedy completions of a batch of prompts, and the accuracy they reach."""

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
    """Continue each prompt greedily up to the stop token, which is left out."""
    encoded = tokenizer(list(prompts), return_tensors="pt", padding=True)
    output = model.generate(
        input_ids=encoded.input_ids, attention_mask=encoded.attention_mask, max_new_tokens=max_new_tokens
    )
    texts = tokenizer.batch_decode(output[:, encoded.input_ids.shape[1] :], skip_special_tokens=True)
    return [text.partition(STOP)[0] for text in texts]


def accuracy(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, domain: Domain, docs: Sequence[dict[str, Any]]
) -> float:
    """Return the share of `docs`, as the suites store them, that the model's greedy completion solves."""
    completions = complete(model, tokenizer, [doc["prompt"] for doc in docs], domain.max_new_tokens)
    return sum(map(domain.score, docs, completions)) / len(docs)
