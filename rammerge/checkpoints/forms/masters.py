"""The one rule for float32 weights of an agent whose base is stored in 16 bits.

Trainers keep float32 master weights. They save those, or the 16-bit model that they serve; the choice says nothing
about the agent. So float32 weights from any file are rounded, to nearest with ties to even, to the base's dtype of the
tensor. Otherwise nearly every element would count as changed, most of them by less than the base's dtype can represent.
With a float32 base, float32 agents stay as they are.
"""

from __future__ import annotations

from collections.abc import Mapping

from rammerge.checkpoints.checkpoint import Checkpoint
from rammerge.checkpoints.forms.tensors import LazyTensor
from rammerge.checkpoints.headers import TensorInfo
from rammerge.numerics.dtypes import DTYPES, DType
from rammerge.system.lazy import torch

FLOAT32 = DTYPES["float32"]


def rounded(
    tensors: Mapping[str, LazyTensor], base: Checkpoint | None, otherwise: str | None
) -> tuple[dict[str, LazyTensor], list[str]]:
    """Return `tensors` with the rule applied, and a sentence about it.

    A tensor that the base does not store, such as the second name of a tied tensor, gets the dtype of most of the base.
    Without a base the dtype is `otherwise`; None leaves all tensors unchanged.
    """
    main = main_dtype(base.tensors) if base is not None else DTYPES[otherwise] if otherwise else None
    targets = {
        name: _target(tensor, base.tensors.get(name) if base else None, main) for name, tensor in tensors.items()
    }
    changed = {name: dtype for name, dtype in targets.items() if dtype is not None}
    if not changed:
        return dict(tensors), []
    result = {name: _cast(tensor, changed[name]) if name in changed else tensor for name, tensor in tensors.items()}
    names = sorted({str(dtype) for dtype in changed.values()})
    fix = "give the base in float32 to keep float32" if base is not None else "name a float32 base to keep float32"
    return result, [f"its {len(changed)} float32 tensors were rounded to {' and '.join(names)}, as exports are; {fix}"]


def main_dtype(tensors: Mapping[str, TensorInfo]) -> DType | None:
    """Return the floating-point dtype of most elements."""
    sizes: dict[DType, int] = {}
    for tensor in tensors.values():
        if tensor.dtype.is_floating_point:
            sizes[tensor.dtype] = sizes.get(tensor.dtype, 0) + tensor.numel
    return max(sizes, key=lambda dtype: sizes[dtype], default=None)


def is_master(tensor: TensorInfo, known: TensorInfo | None) -> bool:
    """Return whether the rule rounds `tensor`, which the base stores as `known`."""
    return tensor.dtype == FLOAT32 and known is not None and _is_short(known.dtype)


def _target(tensor: LazyTensor, known: TensorInfo | None, main: DType | None) -> DType | None:
    dtype = known.dtype if known is not None else main
    return dtype if tensor.dtype == torch.float32 and dtype is not None and _is_short(dtype) else None


def _is_short(dtype: DType) -> bool:
    return dtype.is_floating_point and dtype.itemsize == 2


def _cast(tensor: LazyTensor, dtype: DType) -> LazyTensor:
    return LazyTensor(dtype.torch_dtype, tensor.shape, lambda: tensor.read().to(dtype.torch_dtype))
