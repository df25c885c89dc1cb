"""Buffers that a model computes from its configuration. Some releases and trainers store them nevertheless."""

import re
from collections.abc import Sequence
from dataclasses import replace
from types import MappingProxyType

from rammerge.checkpoints.checkpoint import Checkpoint

# Frequencies and tables of rotary embeddings, positions, token types, causal masks. Parameters have different names or
# fewer dimensions: GPT-2's mask is attn.bias [1, 1, n, n], and a linear layer's bias has one dimension.
_COMPUTED = re.compile(
    r"(?:.*\.)?(?:(?P<any>(?:original_)?inv_freq|(?:cos|sin)_cached|position_ids|token_type_ids|masked_bias)"
    r"|(?P<mask>att(?:n|ention)\.bias))"
)
_MASK_DIMENSIONS = 4


def is_computed(name: str, shape: Sequence[int]) -> bool:
    """Return whether the tensor `name` of `shape` is a buffer that its model computes when it is loaded."""
    found = _COMPUTED.fullmatch(name)
    return found is not None and (found["mask"] is None or len(shape) == _MASK_DIMENSIONS)


def with_buffers_of(base: Checkpoint, agent: Checkpoint) -> Checkpoint:
    """Return a view of `agent` with exactly the computed buffers that `base` stores.

    Buffers that only the agent stores are left out. Buffers that only the base stores are taken from the base. None of
    them is trained.
    """
    kept = {
        name: tensor
        for name, tensor in agent.tensors.items()
        if name in base.tensors or not is_computed(name, tensor.shape)
    }
    lent = {
        name: tensor
        for name, tensor in base.tensors.items()
        if name not in agent.tensors and is_computed(name, tensor.shape)
    }
    if len(kept) == len(agent.tensors) and not lent:
        return agent
    return replace(agent, tensors=MappingProxyType(dict(sorted({**kept, **lent}.items()))))
