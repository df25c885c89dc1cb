"""The arithmetic of LoRA adapters, tensor by tensor, as in PEFT's `merge_and_unload`.

W <- W + s * B A (LoRA, arXiv 2106.09685, section 4.1), with s = alpha / r, or alpha / sqrt(r) for rsLoRA
(arXiv 2312.03732); for DoRA (arXiv 2402.09353, eq. 5) W <- m * (W + s * B A) / ||W + s * B A||, the norm of each row.
As in PEFT by default, 16-bit adapters are computed in float32, and the sum is rounded once to the weight's dtype. The
tests compare the result with PEFT bit for bit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rammerge.checkpoints.forms.tensors import LazyTensor
from rammerge.system.lazy import torch

# The adapter's tensors for one module, by part: `lora_A`, `lora_B`, `lora_B.bias`, ...
Parts = Mapping[str, LazyTensor]
TOKENS = "trainable_tokens_delta"


def adapted(weight: LazyTensor, parts: Parts, scaling: float, *, turned: bool, dora: bool) -> LazyTensor:
    """Return `weight` [out, in] with the low-rank product of `parts` added; [in, out] if it is stored `turned`."""

    def read() -> torch.Tensor:
        base = weight.read()
        if "lora_embedding_A" in parts:
            delta = _product(parts["lora_embedding_A"], parts["lora_embedding_B"], turned, scaling)
            return base + delta.to(base.dtype)  # only here PEFT rounds before it adds
        delta = _product(parts["lora_A"], parts["lora_B"], turned, scaling)
        if not dora:
            return (base + delta).to(base.dtype)
        magnitude = _widened(parts["lora_magnitude_vector"])
        total = base + delta
        norm: torch.Tensor = torch.linalg.norm(total.T if turned else total, dim=1)
        factor = (magnitude / norm).view(-1, 1)
        return ((factor.T if turned else factor) * total).to(base.dtype)

    return LazyTensor(weight.dtype, weight.shape, read)


def shifted(bias: LazyTensor, change: LazyTensor, scaling: float) -> LazyTensor:
    """Return `bias` [out] with the scaled bias of lora_B added."""
    return LazyTensor(bias.dtype, bias.shape, lambda: (bias.read() + _widened(change) * scaling).to(bias.dtype))


def with_rows(weight: LazyTensor, indices: Sequence[int], rows: LazyTensor) -> LazyTensor:
    """Return `weight` [vocabulary, hidden] with the rows `indices` replaced by `rows`."""

    def read() -> torch.Tensor:
        found = weight.read()
        return found.index_copy(0, torch.tensor(indices, dtype=torch.int64), rows.read().to(found.dtype))

    return LazyTensor(weight.dtype, weight.shape, read)


def changes_nothing(parts: Parts, scaling: float) -> bool:
    """Return whether the low-rank product of `parts` is zero for every weight."""
    second = parts.get("lora_B", parts.get("lora_embedding_B"))
    first = parts.get("lora_A", parts.get("lora_embedding_A"))
    if first is None or second is None or "lora_magnitude_vector" in parts or "lora_B.bias" in parts:
        return False
    return scaling == 0 or not bool(second.read().any()) or not bool(first.read().any())


def same_change(embedding: Parts, head: Parts) -> bool:
    """Return whether the adapters of an embedding and of its tied head are equal; PEFT stores one transposed."""
    pairs = (("lora_embedding_A", "lora_B"), ("lora_embedding_B", "lora_A"))
    if any(one not in embedding or other not in head for one, other in pairs):
        return False
    return all(torch.equal(embedding[one].read().T, head[other].read()) for one, other in pairs)


def _product(first: LazyTensor, second: LazyTensor, turned: bool, scaling: float) -> torch.Tensor:
    product = _widened(second) @ _widened(first)
    return (product.T if turned else product) * scaling


def _widened(tensor: LazyTensor) -> torch.Tensor:
    found = tensor.read()
    return found.float() if found.dtype in (torch.float16, torch.bfloat16) else found
