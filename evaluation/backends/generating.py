"""Generating answers with less work: the same answers, without what nothing looks at."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

# Layers of one shape: attention and then a perceptron, each after a norm and beside a residual.
_PLAIN_LAYERS = ("LlamaDecoderLayer", "MistralDecoderLayer", "Qwen2DecoderLayer", "Qwen3DecoderLayer")


@contextmanager
def last_position_only(model: "PreTrainedModel") -> Iterator[None]:
    """While the context lasts, have the last layer of `model` answer for the last position of each prompt alone.

    A model that generates needs no more. The layer's attention still reads all positions, but its perceptron, which is
    most of its work, reads one. A model whose layers have a different shape is left as it is.
    """
    layer = _last_layer(model)
    if layer is None:
        yield
        return

    def forward(hidden_states: "torch.Tensor", **given: Any) -> "torch.Tensor":
        attended, _ = layer.self_attn(hidden_states=layer.input_layernorm(hidden_states), **given)
        last = hidden_states[:, -1:] + attended[:, -1:]
        answer: torch.Tensor = last + layer.mlp(layer.post_attention_layernorm(last))
        return answer

    layer.forward = forward
    try:
        yield
    finally:
        del layer.forward


def _last_layer(model: "PreTrainedModel") -> Any:
    """Return the last layer of a model if its shape is known and nobody else has replaced its work, else None."""
    layers = getattr(getattr(model, "model", None), "layers", None)
    if not layers:
        return None
    kind = type(layers[-1])
    known = kind.__module__.startswith("transformers.models.") and kind.__name__ in _PLAIN_LAYERS
    return layers[-1] if known and "forward" not in vars(layers[-1]) else None
