"""Decoders of one shape, which read rows of different lengths without padding.

Nearly all of a decoder works on each token alone, so it takes the tokens of all rows one after the other. Only its
attention has to know where rows begin, and that is kept by `Rows`. All layers have one shape: attention and then a
perceptron, each after a norm and beside a residual. torch is imported by the first call.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from evaluation.backends.rows import Rows

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

_KINDS = ("LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM")
# Rotations by angles that do not depend on how long rows are.
_ROTATIONS = ("default", "linear", "llama3", "yarn")


def is_known(model: "PreTrainedModel") -> bool:
    """Tell whether a model has the shape that this module knows, and all of its layers attend to all tokens before."""
    kind, config = type(model), model.config
    return (
        kind.__module__.startswith("transformers.models.")
        and kind.__name__ in _KINDS
        and config._attn_implementation == "sdpa"
        and set(getattr(config, "layer_types", None) or ()) <= {"full_attention"}
        and getattr(config, "sliding_window", None) is None
        and config.rope_parameters.get("rope_type", "default") in _ROTATIONS
    )


def read(model: "PreTrainedModel", prompts: "Sequence[torch.Tensor]", most: int) -> "tuple[Rows, torch.Tensor]":
    """Return the rows that begin with `prompts`, and the logits of what follows each [rows, vocabulary].

    At most `most` tokens may follow.
    """
    import torch

    rows = Rows([len(prompt) for prompt in prompts], most=most, device=prompts[0].device)
    positions = torch.cat([torch.arange(len(prompt), device=prompt.device) for prompt in prompts])
    return rows, _logits(model, rows, torch.cat(list(prompts)), positions, rows.last)


def follow(model: "PreTrainedModel", rows: Rows, tokens: "torch.Tensor") -> "torch.Tensor":
    """Return the logits of what follows after one more token of each row [rows, vocabulary]."""
    rows.step()
    return _logits(model, rows, tokens, rows.positions - 1, slice(None))


def _logits(
    model: Any, rows: Rows, tokens: "torch.Tensor", positions: "torch.Tensor", last: "torch.Tensor | slice"
) -> "torch.Tensor":
    """Return the logits after the tokens at the places `last`."""
    decoder = model.model
    states = decoder.embed_tokens(tokens)
    turns = tuple(each[0, :, None] for each in decoder.rotary_emb(states, positions[None]))
    *layers, final = decoder.layers
    for layer in layers:
        states = _through(layer, rows, states, turns, slice(None))
    logits: torch.Tensor = model.lm_head(decoder.norm(_through(final, rows, states, turns, last)))
    return logits


def _through(
    layer: Any,
    rows: Rows,
    states: "torch.Tensor",
    turns: "tuple[torch.Tensor, ...]",
    wanted: "torch.Tensor | slice",
) -> "torch.Tensor":
    """Return what a layer makes of the tokens at the places `wanted`, which look back to all."""
    attention, normed = layer.self_attn, layer.input_layernorm(states)
    key = _turned(_by_heads(attention, "k", normed), turns)
    value = _by_heads(attention, "v", normed)
    query = _turned(_by_heads(attention, "q", normed[wanted]), tuple(each[wanted] for each in turns))
    found = rows.attend(attention.layer_idx, query, key, value, attention.scaling)
    states = states[wanted] + attention.o_proj(found.flatten(1))
    answer: torch.Tensor = states + layer.mlp(layer.post_attention_layernorm(states))
    return answer


def _by_heads(attention: Any, name: str, states: "torch.Tensor") -> "torch.Tensor":
    """Return queries, keys or values [tokens, heads, size]; some kinds have a norm for queries and keys."""
    made: torch.Tensor = getattr(attention, f"{name}_proj")(states).unflatten(-1, (-1, attention.head_dim))
    norm = getattr(attention, f"{name}_norm", None)
    return made if norm is None else norm(made)


def _turned(states: "torch.Tensor", turns: "tuple[torch.Tensor, ...]") -> "torch.Tensor":
    """Rotate the pairs that the halves of each head make: RoFormer (arXiv 2104.09864), equation 34."""
    cosine, sine = turns
    first, second = states.chunk(2, -1)
    low, high = sine.chunk(2, -1)
    turned = states * cosine
    turned_first, turned_second = turned.chunk(2, -1)
    turned_first.addcmul_(second, low, value=-1)
    turned_second.addcmul_(first, high)
    return turned
