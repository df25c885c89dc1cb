"""Train the base: next-token prediction on demonstrations of all three domains by a demonstrator that is usually wrong.

A document is one context with several questions, each answered at once. Each answer follows the domain's
systematically wrong rule with probability `wrong_rule_share`, independently of the others. So the model learns both the
right way and the wrong way, and its greedy answers take the wrong one. Random mistakes would not have this effect:
greedy decoding filters them out.

The loss covers only the answers and the end of the document. The rest is mostly random by construction, and predicting
it too slowed learning down.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from examples.zoo.domains import DOMAINS, Item
from examples.zoo.tokenizer import STOP


@dataclass(frozen=True)
class PretrainSettings:
    """How the base is trained; `documents` is the number per domain and step."""

    seed: int = 1
    steps: int = 1500
    documents: int = 12
    wrong_rule_share: float = 0.6
    learning_rate: float = 3e-3
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.1
    warmup_steps: int = 100
    gradient_norm: float = 1.0


def build_model(tokenizer: PreTrainedTokenizerFast, seed: int) -> LlamaForCausalLM:
    """Return a Llama of 1.1 M parameters with random weights."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=4,
        max_position_embeddings=128,
        rope_parameters={"rope_type": "default", "rope_theta": 1000.0},  # contexts are short
        # At this width the usual 0.02 makes attention so flat at the start that learning takes several times the steps.
        initializer_range=0.06,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = LlamaForCausalLM(config)
    # On a CPU, torch's fused attention takes twice as long as plain matrix products for sequences this short.
    model.set_attn_implementation("eager")
    return model


def train(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, settings: PretrainSettings
) -> Iterator[dict[str, float]]:
    """Train `model` in place. After each step, yield the loss of every domain in nats per token."""
    weights: list[Tensor] = list(model.parameters())
    groups: list[dict[str, Any]] = [
        {"params": [weight for weight in weights if weight.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [weight for weight in weights if weight.ndim <= 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=settings.learning_rate, betas=settings.betas)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1.0, (step + 1) / settings.warmup_steps) * (1 - step / settings.steps)
    )
    coin = random.Random(f"pretrain/{settings.seed}")
    documents = {name: domain.documents("train", settings.seed, domain.turns) for name, domain in DOMAINS.items()}
    for _ in range(settings.steps):
        losses = {}
        # One batch per domain: domains differ in length, and a third of a common batch would be padding.
        for name, stream in documents.items():
            segments = [_segments(next(stream), coin, settings.wrong_rule_share) for _ in range(settings.documents)]
            loss = _loss(model, *encode(tokenizer, segments))
            torch.autograd.backward(loss / len(documents))
            losses[name] = loss.item()
        torch.nn.utils.clip_grad_norm_(model.parameters(), settings.gradient_norm)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        yield losses


def _segments(items: list[Item], coin: random.Random, wrong_rule_share: float) -> list[str]:
    """Return the text of one document in parts: the context with the first question, an answer, a question, ..."""
    segments: list[str] = []
    for item in items:
        answer = item.slip if coin.random() < wrong_rule_share else item.target
        segments += [item.question if segments else item.prompt, answer + STOP]
    return segments


def encode(tokenizer: PreTrainedTokenizerFast, documents: list[list[str]]) -> tuple[Tensor, Tensor]:
    """Return the tokens, int64 [documents, longest], padded on the right, and each token's weight in the loss, float32.

    The answers are the segments at odd places. Each answer weighs 1 in total, however long it is; the end of a document
    weighs 1/4.
    """
    encoded = iter(tokenizer([segment for segments in documents for segment in segments]).input_ids)
    rows, weights = [], []
    for segments in documents:
        tokens, weight = [], []
        for place in range(len(segments)):
            segment = next(encoded)
            tokens += segment
            weight += [place % 2 / len(segment)] * len(segment)
        rows.append(torch.tensor([*tokens, tokenizer.eos_token_id]))
        weights.append(torch.tensor([*weight, 0.25]))
    pad = torch.nn.utils.rnn.pad_sequence
    return pad(rows, batch_first=True, padding_value=tokenizer.pad_token_id), pad(weights, batch_first=True)


def _loss(model: LlamaForCausalLM, tokens: Tensor, weights: Tensor) -> Tensor:
    # Matrix products run in bfloat16; weights and everything else stay in float32.
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model(tokens).logits
    losses = cross_entropy(logits[:, :-1].float().transpose(1, 2), tokens[:, 1:], reduction="none")
    return (losses * weights[:, 1:]).sum() / weights[:, 1:].sum()
