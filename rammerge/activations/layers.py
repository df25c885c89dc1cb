"""The linear layers of a model that transformers runs, and the names under which their weights are stored."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from rammerge.checkpoints.checkpoint import Checkpoint
from rammerge.checkpoints.forms.architecture import Architecture
from rammerge.system.lazy import torch


@dataclass(frozen=True)
class Layer:
    """A linear layer.

    Attributes:
        module: the layer.
        tensor: the name of its weight, as stored.
        width: the number of its inputs.
        inputs_first: whether the weight is stored [inputs, outputs].
    """

    module: Any
    tensor: str
    width: int
    inputs_first: bool


def linear_layers(model: Any, checkpoint: Checkpoint) -> list[Layer]:
    """Return the linear layers whose weight the checkpoint stores as one matrix, without the model's head."""
    names = _Names(checkpoint)
    head = model.get_output_embeddings()
    modules = [(name, module) for name, module in model.named_modules() if module is not head]
    return [layer for name, module in modules for layer in _layer(name, module, names)]


def _layer(name: str, module: Any, names: _Names) -> Iterator[Layer]:
    from transformers.pytorch_utils import Conv1D  # GPT-2's linear layer

    inputs_first = isinstance(module, Conv1D)
    if not inputs_first and not isinstance(module, torch.nn.Linear):
        return
    stored = names.stored(f"{name}.weight")
    if stored is not None and names.checkpoint.tensors[stored].shape == tuple(module.weight.shape):
        width = module.weight.shape[0] if inputs_first else module.weight.shape[1]
        yield Layer(module, stored, width, inputs_first)


@dataclass(frozen=True)
class _Names:
    checkpoint: Checkpoint

    def stored(self, name: str) -> str | None:
        """Return the stored name of a tensor that has `name` in memory; None if it is not stored as it is."""
        tensors = self.checkpoint.tensors
        if name in tensors:
            return name
        found = self._architecture.stored_name(name) if self._architecture else None
        return found if found in tensors else None

    @cached_property
    def _architecture(self) -> Architecture | None:
        return Architecture.of(self.checkpoint.config, list(self.checkpoint.tensors))
