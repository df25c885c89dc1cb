"""Merging PEFT LoRA adapters into their base: matching an adapter's tensors with the base's tensors.

An adapter is in a directory of its own, or among the weights that it adapts, as in a trainer's state dict. The merged
model computes the same as the trained model. If the base ties head and embedding, but PEFT has trained only one of
them, both are returned, because they differ then.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from rammerge.checkpoints.checkpoint import Checkpoint
from rammerge.checkpoints.forms import lora
from rammerge.checkpoints.forms.adapter_names import AdapterNames
from rammerge.checkpoints.forms.lora_settings import LoraSettings
from rammerge.checkpoints.forms.lora_state import split_state
from rammerge.checkpoints.forms.tensors import LazyTensor, stored
from rammerge.errors import InputError
from rammerge.system.lazy import torch


def merge_lora(
    where: Path, settings: LoraSettings, tensors: Mapping[str, LazyTensor], base: Checkpoint
) -> dict[str, LazyTensor]:
    """Return the tensors of `base` with the adapter in `tensors` merged in. They are computed when read.

    Weights in `tensors` that do not belong to the adapter replace the base's.

    Raises:
        InputError: `tensors`, which are stored in `where`, do not fit `base`.
    """
    names = AdapterNames(where, settings, base)
    state = split_state(where, tensors)
    weights = {name: stored(info) for name, info in base.tensors.items()}
    changed = {**names.settle(state.plain), **names.settle(state.trained)}
    modules = {names.of(f"{module}.weight").removesuffix(".weight"): parts for module, parts in state.parts.items()}
    ties = names.ties([*changed, *(f"{module}.weight" for module in modules)])
    weights |= {alias: weights[kept] for alias, kept in ties.items()}
    for name, tensor in changed.items():
        _check_shape(where, name, tensor, weights[name])
        weights[name] = _cast(tensor, weights[name].dtype)
    if settings.config.get("trainable_token_indices") and not any(lora.TOKENS in parts for parts in modules.values()):
        raise InputError(
            f"{settings.file} uses 'trainable_token_indices', but {where} has no trained rows; save it again"
        )
    for module, parts in modules.items():
        _check_parts(where, settings, module, parts, weights)
    turned = _stored_input_first(settings, modules, weights)
    for module, parts in modules.items():
        _adapt(settings, module, parts, weights, turned=turned[module])
    for alias, kept in ties.items():
        if _stay_tied(modules, changed, alias, kept):
            del weights[alias]
    return weights


def adapter_rank(where: Path, tensors: Mapping[str, LazyTensor]) -> int | None:
    """Return the highest rank of the adapter's updates of matrices, None if it only trains tokens or whole tensors."""
    parts = split_state(where, tensors).parts
    return max((_rank(where, module, each) for module, each in parts.items() if lora.TOKENS not in each), default=None)


def adds_nothing(where: Path, settings: LoraSettings, tensors: Mapping[str, LazyTensor]) -> str | None:
    """Return why the adapter in `tensors` changes no weight, or None if it changes some."""
    state = split_state(where, tensors)
    if state.trained or not state.parts or any(lora.TOKENS in parts for parts in state.parts.values()):
        return None
    scalings = {module: settings.scaling(module, _rank(where, module, parts)) for module, parts in state.parts.items()}
    if not all(lora.changes_nothing(parts, scalings[module]) for module, parts in state.parts.items()):
        return None
    if not any(scalings.values()):
        return f"its scaling is zero (lora_alpha {settings.config.get('lora_alpha')})"
    return "its matrices are all zero on one side, as before training"


def _stay_tied(modules: Mapping[str, lora.Parts], changed: Mapping[str, LazyTensor], alias: str, kept: str) -> bool:
    """Return whether the adapter changes the tensors `alias` and `kept` in the same way."""
    parts = modules.get(kept.removesuffix(".weight")), modules.get(alias.removesuffix(".weight"))
    whole = changed.get(kept), changed.get(alias)
    if parts[0] and lora.TOKENS in parts[0] and not parts[1]:
        return True  # PEFT trains tokens of tied layers together and stores the embedding's
    if parts == (None, None):
        return _same(whole[0], whole[1])
    if parts[0] is None or parts[1] is None or not lora.same_change(parts[0], parts[1]):
        return False
    return whole == (None, None) or _same(whole[0], whole[1])


def _same(one: LazyTensor | None, other: LazyTensor | None) -> bool:
    if one is None or other is None:
        return one is other
    return one.shape == other.shape and torch.equal(one.read(), other.read())


def _adapt(
    settings: LoraSettings, module: str, parts: lora.Parts, weights: dict[str, LazyTensor], *, turned: bool
) -> None:
    name = f"{module}.weight"
    if lora.TOKENS in parts:
        weights[name] = lora.with_rows(weights[name], settings.token_indices(module), parts[lora.TOKENS])
        return
    scaling = settings.scaling(module, _rank(settings.file, module, parts))
    weights[name] = lora.adapted(weights[name], parts, scaling, turned=turned, dora=settings.dora)
    if "lora_B.bias" in parts:
        weights[f"{module}.bias"] = lora.shifted(weights[f"{module}.bias"], parts["lora_B.bias"], scaling)


def _check_shape(where: Path, name: str, tensor: LazyTensor, wanted: LazyTensor) -> None:
    if tensor.shape != wanted.shape:
        raise InputError(
            f"{where} replaces {name} by a tensor of shape {list(tensor.shape)} and the base has {list(wanted.shape)}; "
            "merge the adapter with PEFT and save the whole model"
        )


def _check_parts(
    where: Path, settings: LoraSettings, module: str, parts: lora.Parts, weights: Mapping[str, LazyTensor]
) -> None:
    if parts.keys() == {lora.TOKENS}:
        _check_rows(where, settings.token_indices(module), module, parts[lora.TOKENS], weights[f"{module}.weight"])
        return
    linear = {"lora_A", "lora_B"} | ({"lora_magnitude_vector"} if settings.dora else set())
    embedding = {"lora_embedding_A", "lora_embedding_B"}
    if parts.keys() - {"lora_B.bias"} != linear and (settings.dora or parts.keys() != embedding):
        raise _refuse_parts(where, module, parts)
    first, second = (parts[name] for name in sorted(parts.keys() & {"lora_A", "lora_B", *embedding}))
    wanted = weights[f"{module}.weight"].shape
    if not len(first.shape) == len(second.shape) == len(wanted) == 2 or second.shape[1] != first.shape[0]:
        raise InputError(f"{where} adapts {module}, which is not a matrix; merge it with PEFT and save the whole model")
    product = second.shape[0], first.shape[1]
    if product not in (wanted, wanted[::-1]):
        raise InputError(
            f"{where} adapts {module} by {list(product)} and the base has {list(wanted)}; name the adapter's base"
        )
    if "lora_B.bias" in parts and f"{module}.bias" not in weights:
        raise InputError(f"{where} has a bias for {module} and the base has none; name the adapter's base")
    for name in sorted(parts.keys() & {"lora_B.bias", "lora_magnitude_vector"}):
        if parts[name].shape != product[:1]:
            raise InputError(
                f"{where} has {name} of shape {list(parts[name].shape)} for {module}, which has {product[0]} outputs; "
                "save the adapter again"
            )


def _check_rows(where: Path, indices: Sequence[int], module: str, rows: LazyTensor, weight: LazyTensor) -> None:
    """Check that the trained rows of an embedding or a head, which have these `indices`, are rows of the base's."""
    if max(indices, default=-1) >= weight.shape[0]:
        raise InputError(
            f"{where} trains row {max(indices)} of {module}, and the base has {weight.shape[0]} rows; give the base "
            "with the tokens that were added before training"
        )
    if rows.shape != (len(indices), *weight.shape[1:]):
        raise InputError(
            f"{where} has trained rows of shape {list(rows.shape)} for {module}, and its settings name {len(indices)} "
            f"rows of a weight of shape {list(weight.shape)}; take configuration and weights of one adapter"
        )


def _refuse_parts(where: Path, module: str, parts: lora.Parts) -> InputError:
    return InputError(
        f"{where} has {', '.join(sorted(parts))} for {module}, which cannot be merged exactly; merge it with "
        "PEFT's merge_and_unload and save the whole model"
    )


def _stored_input_first(
    settings: LoraSettings, modules: Mapping[str, lora.Parts], weights: Mapping[str, LazyTensor]
) -> dict[str, bool]:
    """Return for each module whether its weight is stored transposed (PEFT's fan_in_fan_out, as in GPT-2).

    PEFT knows this from the module's class. Here a shape that is not square decides. Square weights follow the other
    weights. Where all are square, the adapter's own setting decides.
    """
    told: dict[str, bool] = {}
    for module, parts in modules.items():
        if "lora_A" not in parts:
            told[module] = True
            continue
        out_features, in_features = parts["lora_B"].shape[0], parts["lora_A"].shape[1]
        if out_features != in_features:
            told[module] = weights[f"{module}.weight"].shape == (in_features, out_features)
    linear = [turned for module, turned in told.items() if "lora_A" in modules[module]]
    otherwise = any(linear) if linear else bool(settings.config.get("fan_in_fan_out"))
    return {module: told.get(module, otherwise) for module in modules}


def _rank(where: Path, module: str, parts: lora.Parts) -> int:
    part = parts.get("lora_A", parts.get("lora_embedding_A"))
    if part is None or not part.shape:
        raise _refuse_parts(where, module, parts)
    if part.shape[0] == 0:
        raise InputError(f"{where} has an empty adapter for {module}; gather the shards before saving it")
    return part.shape[0]


def _cast(tensor: LazyTensor, dtype: torch.dtype) -> LazyTensor:
    return LazyTensor(dtype, tensor.shape, lambda: tensor.read().to(dtype))
