"""The parameters of a loaded torch model, by the names of a checkpoint's tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from rammerge.checkpoints.checkpoint import Checkpoint
from rammerge.errors import InputError
from rammerge.numerics.dtypes import DTYPES

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module


def parameters_of(model: Module, base: Checkpoint, dtype: str, device: str) -> dict[str, Tensor]:
    """Return where each tensor of a merge of `base` goes: the model's parameter or buffer of that name, as a vector.

    Args:
        model: a torch module, such as a transformers model.
        base: the view of the base that is merged.
        dtype: of the merge's float tensors.
        device: where the merge computes.

    Raises:
        InputError: names, shapes, dtypes or the device differ, or the model ties tensors that the merge keeps apart.
    """
    found = model.state_dict()
    if missing := [name for name in base.tensors if name not in found]:
        raise InputError(f"the model has no tensor '{missing[0]}'; load a model of the base's architecture")
    targets = {name: found[name] for name in base.tensors}
    for name, target in targets.items():
        info = base.tensors[name]
        wanted = DTYPES[dtype] if info.dtype.is_floating_point else info.dtype
        if tuple(target.shape) != info.shape:
            shapes = f"{list(target.shape)} and the base's {list(info.shape)}"
            raise InputError(f"the model's '{name}' has the shape {shapes}; load a model of the base's architecture")
        if target.dtype != wanted.torch_dtype:
            raise InputError(
                f"the model's '{name}' is {str(target.dtype).removeprefix('torch.')} and the merge's {wanted.name}; "
                "give the model's dtype to the merge, or load the model in the merge's"
            )
        if target.device.type != device.partition(":")[0] or not target.is_contiguous():
            raise InputError(f"the model's '{name}' is not in the memory of {device} as a whole; load the model there")
    _check_sharing(found, targets)
    return {name: target.detach().view(-1) for name, target in targets.items()}


def _check_sharing(found: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> None:
    """Check that each tensor of the model is one of the merge's, or tied to one, and that none is two."""
    owners: dict[int, str] = {}
    for name, target in targets.items():
        other = owners.setdefault(target.data_ptr(), name)
        if other != name and target.numel():
            raise InputError(
                f"the model ties '{name}' to '{other}', which the merge keeps apart; load the model with "
                "tie_word_embeddings=False"
            )
    if extra := [name for name, tensor in found.items() if name not in targets and tensor.data_ptr() not in owners]:
        raise InputError(f"the model has '{extra[0]}', which the base lacks; load a model of the base's architecture")
