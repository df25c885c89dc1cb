"""The tensors of a state dict that contains a LoRA adapter, by kind."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from rammerge.checkpoints.buffers import is_computed
from rammerge.checkpoints.forms import lora
from rammerge.checkpoints.forms.names import strip
from rammerge.checkpoints.forms.tensors import LazyTensor
from rammerge.errors import InputError

_PART = re.compile(
    r"(?P<module>.+)\.(?P<part>lora_A|lora_B|lora_embedding_A|lora_embedding_B|lora_magnitude_vector"
    rf"|token_adapter\.{lora.TOKENS})"
    r"(?:\.(?!(?:weight|bias)$)(?P<adapter>[^.]+))?(?P<leaf>\.weight|\.bias)?"
)
# Names in a live model of the adapted module, and of the trained copy of a module that is trained completely.
_FROZEN = re.compile(r"\.(?:base_layer|original_module|token_adapter\.base_layer)(?=\.)")
_TRAINED = re.compile(r"\.modules_to_save(?:\.(?P<adapter>[^.]+))?(?=\.(?:weight|bias)$)")


@dataclass(frozen=True)
class LoraState:
    """The tensors of a state dict that contains an adapter, by kind.

    Attributes:
        plain: untrained weights by name.
        trained: weights by name that were trained completely and replace the plain ones.
        parts: the adapter's tensors by adapted module and part: `lora_A`, `lora_B.bias`, ...
    """

    plain: dict[str, LazyTensor] = field(default_factory=dict)
    trained: dict[str, LazyTensor] = field(default_factory=dict)
    parts: dict[str, dict[str, LazyTensor]] = field(default_factory=lambda: defaultdict(dict))


def holds_lora(names: Iterable[str]) -> bool:
    """Return whether a state dict with `names` contains an adapter."""
    return any(_PART.fullmatch(name) for name in names)


def split_state(where: Path, tensors: Mapping[str, LazyTensor]) -> LoraState:
    """Return the tensors of a state dict, which is stored in `where`, by kind.

    Raises:
        InputError: the state dict contains several adapters.
    """
    state = LoraState()
    adapters = set()
    for name, tensor in sorted(strip(tensors).items()):
        if found := _PART.fullmatch(name):
            leaf = ".bias" if found["leaf"] == ".bias" else ""
            state.parts[found["module"]][found["part"].removeprefix("token_adapter.") + leaf] = tensor
            adapters.add(found["adapter"])
        elif is_computed(name, tensor.shape):
            continue
        elif found := _TRAINED.search(name):
            state.trained[_TRAINED.sub("", name)] = tensor
            adapters.add(found["adapter"])
        else:
            state.plain[_FROZEN.sub("", name)] = tensor
    if len(adapters - {None}) > 1:
        raise InputError(
            f"{where} has several adapters ({', '.join(sorted(filter(None, adapters)))}); save only the trained one"
        )
    return state
