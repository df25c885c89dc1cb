"""Merging PEFT LoRA adapters into their base: matching an adapter's tensors with the base's tensors.

An adapter is in a directory of its own, or among the weights that it adapts, as in a trainer's state dict. The merged
model computes the same as the trained model. If the base ties head and embedding, but PEFT has trained only one of
them, both are returned, because they differ then.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from rammerge.checkpoints.buffers import is_computed
from rammerge.checkpoints.checkpoint import Checkpoint
from rammerge.checkpoints.forms import lora
from rammerge.checkpoints.forms.architecture import Architecture
from rammerge.checkpoints.forms.lora_settings import LoraSettings
from rammerge.checkpoints.forms.names import strip
from rammerge.checkpoints.forms.pickled import load_state_dict
from rammerge.checkpoints.forms.tensors import LazyTensor, constant, stored
from rammerge.checkpoints.headers import read_header
from rammerge.checkpoints.stored import ADAPTER
from rammerge.checkpoints.tying import is_tied, may_be_tied, text_setting
from rammerge.errors import InputError
from rammerge.system.lazy import torch
from rammerge.system.reading import list_directory, quote

CONFIG = "adapter_config.json"
PICKLED_ADAPTER = "adapter_model.bin"

_PART = re.compile(
    r"(?P<module>.+)\.(?P<part>lora_A|lora_B|lora_embedding_A|lora_embedding_B|lora_magnitude_vector"
    rf"|token_adapter\.{lora.TOKENS})"
    r"(?:\.(?!(?:weight|bias)$)(?P<adapter>[^.]+))?(?P<leaf>\.weight|\.bias)?"
)
# The tasks of models that generate. An adapter for any other task has a head that the base does not have.
_GENERATING = (None, "CAUSAL_LM", "SEQ_2_SEQ_LM")
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


def adapter_files(directory: Path) -> list[Path]:
    """Return the files that define the adapter in `directory`: its configuration and its weights."""
    names = {entry.name for entry in list_directory(directory)}
    weights = next((name for name in (ADAPTER, PICKLED_ADAPTER) if name in names), None)
    if weights is None:
        raise InputError(f"{directory} has an {CONFIG} and no {ADAPTER}; save the adapter with save_pretrained")
    return [directory / CONFIG, directory / weights]


def merge_adapter(directory: Path, base: Checkpoint) -> dict[str, LazyTensor]:
    """Return the tensors of `base` with the LoRA adapter in `directory` merged in. They are computed when read.

    Raises:
        InputError: the adapter is not a LoRA that can be merged exactly, or does not fit `base`.
    """
    file, weights = adapter_files(directory)
    return merge_lora(weights, LoraSettings.read(file), read_adapter(weights), base)


def holds_lora(names: Iterable[str]) -> bool:
    """Return whether a state dict with `names` contains an adapter."""
    return any(_PART.fullmatch(name) for name in names)


def merge_lora(
    where: Path, settings: LoraSettings, tensors: Mapping[str, LazyTensor], base: Checkpoint
) -> dict[str, LazyTensor]:
    """Return the tensors of `base` with the adapter in `tensors` merged in. They are computed when read.

    Weights in `tensors` that do not belong to the adapter replace the base's.

    Raises:
        InputError: `tensors`, which are stored in `where`, do not fit `base`.
    """
    names = _Names(where, settings, base)
    state = _split(where, tensors)
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
        _check_parts(where, module, parts, weights, dora=settings.dora)
    turned = _stored_input_first(settings, modules, weights)
    for module, parts in modules.items():
        _adapt(settings, module, parts, weights, turned=turned[module])
    for alias, kept in ties.items():
        if _stay_tied(modules, changed, alias, kept):
            del weights[alias]
    return weights


def adds_nothing(where: Path, settings: LoraSettings, tensors: Mapping[str, LazyTensor]) -> str | None:
    """Return why the adapter in `tensors` changes no weight, or None if it changes some."""
    state = _split(where, tensors)
    if state.trained or not state.parts or any(lora.TOKENS in parts for parts in state.parts.values()):
        return None
    scalings = {module: settings.scaling(module, _rank(where, module, parts)) for module, parts in state.parts.items()}
    if not all(lora.changes_nothing(parts, scalings[module]) for module, parts in state.parts.items()):
        return None
    if not any(scalings.values()):
        return f"its scaling is zero (lora_alpha {settings.config.get('lora_alpha')})"
    return "its matrices are all zero on one side, as before training"


def _split(where: Path, tensors: Mapping[str, LazyTensor]) -> LoraState:
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


class _Names:
    """Finds the base's stored tensors by the names that modules have in memory.

    transformers stores some composite models under `model.layers.0...` and calls them
    `model.language_model.layers.0...` in memory, or vice versa. Such a name is accepted when exactly one stored name
    differs from it only in this way. Other names are looked up in transformers' conversion tables.
    """

    def __init__(self, where: Path, settings: LoraSettings, base: Checkpoint) -> None:
        self._where = where
        self._base = base
        task = settings.config.get("task_type")
        self._fix = "name the adapter's base" if task in _GENERATING else f"it is an adapter for the task {quote(task)}"
        self._by_core: dict[str, list[str]] = defaultdict(list)
        for name in base.tensors:
            self._by_core[self._core(name)].append(name)

    def of(self, name: str) -> str:
        """Return the base's name for the tensor that the adapter calls `name`, or for a tensor tied to it."""
        if name in self._base.tensors:
            return name
        found = self._by_core.get(self._core(name), [])
        if len(found) == 1:
            return found[0]
        stored_name = self._architecture.stored_name(name) if self._architecture else None
        if stored_name is not None and stored_name in self._base.tensors:
            return stored_name
        alias = stored_name or name
        if alias in (self._all_ties or {}):
            return alias
        raise InputError(f"{self._where} adapts {quote(name)}, which the base does not have; {self._fix}")

    def settle(self, tensors: Mapping[str, LazyTensor]) -> dict[str, LazyTensor]:
        """Return complete `tensors` under the base's names, split where transformers fuses them in memory."""
        result: dict[str, LazyTensor] = {}
        fused: dict[str, LazyTensor] = {}
        for name, tensor in tensors.items():
            try:
                result[self.of(name)] = tensor
            except InputError:
                if self._architecture is None or name not in self._architecture.held:
                    raise
                fused[name] = tensor
        translated = self._architecture.translate(fused) if fused and self._architecture else {}
        if translated is None or translated.keys() - self._base.tensors.keys():
            self.of(next(iter(fused)))
        return result | (translated or {})

    def ties(self, touched: Iterable[str]) -> dict[str, str]:
        """Return alias -> kept name for tied tensors of the base of which the adapter touches one."""
        names = {name for name in touched if may_be_tied(name)}
        if not names:
            return {}
        ties = self._all_ties
        if ties is None:
            raise InputError(
                f"{self._where} adapts the embedding or the head, which the base ties, and transformers does not know "
                "the base's architecture; merge the adapter with PEFT into a base whose head is untied, and use that"
            )
        found = {alias: kept for alias, kept in ties.items() if names & {alias, kept}}
        shared = next((kept for kept in found.values() if list(ties.values()).count(kept) > 1), None)
        if shared is not None:
            raise InputError(
                f"{self._where} adapts {shared} or a tensor tied to it, and the base ties several tensors to it; merge "
                "the adapter with PEFT into a base whose embeddings are untied, and use that"
            )
        return found

    @cached_property
    def _architecture(self) -> Architecture | None:
        return Architecture.of(self._base.config, self._base.tensors.keys())

    @cached_property
    def _all_ties(self) -> Mapping[str, str] | None:
        """Alias -> kept name for the tensors that the base ties; None if that depends on an unknown architecture."""
        if text_setting(self._base.config, "tie_word_embeddings") is False:
            return {}
        if self._base.tied:
            return self._base.tied
        if self._architecture is None:
            return None if is_tied(self._base.config) else {}
        ties = self._architecture.tied()
        stored_names = self._base.tensors.keys()
        return {alias: kept for alias, kept in ties.items() if kept in stored_names and alias not in stored_names}

    @staticmethod
    def _core(name: str) -> str:
        return ".".join(part for part in name.split(".") if part not in ("model", "language_model"))


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


def read_adapter(weights: Path) -> dict[str, LazyTensor]:
    """Return the tensors in the file `weights` of an adapter."""
    if weights.name == ADAPTER:
        return {name: stored(info) for name, info in read_header(weights).items()}
    return {name: constant(tensor) for name, tensor in load_state_dict(weights).items()}


def _check_shape(where: Path, name: str, tensor: LazyTensor, wanted: LazyTensor) -> None:
    if tensor.shape != wanted.shape:
        raise InputError(
            f"{where} replaces {name} by a tensor of shape {list(tensor.shape)} and the base has {list(wanted.shape)}; "
            "merge the adapter with PEFT and save the whole model"
        )


def _check_parts(where: Path, module: str, parts: lora.Parts, weights: Mapping[str, LazyTensor], *, dora: bool) -> None:
    if parts.keys() == {lora.TOKENS}:
        return
    linear = {"lora_A", "lora_B"} | ({"lora_magnitude_vector"} if dora else set())
    embedding = {"lora_embedding_A", "lora_embedding_B"}
    if parts.keys() - {"lora_B.bias"} != linear and (dora or parts.keys() != embedding):
        raise InputError(
            f"{where} has {', '.join(sorted(parts))} for {module}, which cannot be merged exactly; merge it with "
            "PEFT's merge_and_unload and save the whole model"
        )
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
    part = parts["lora_A"] if "lora_A" in parts else parts["lora_embedding_A"]
    if part.shape[0] == 0:
        raise InputError(f"{where} has an empty adapter for {module}; gather the shards before saving it")
    return part.shape[0]


def _cast(tensor: LazyTensor, dtype: torch.dtype) -> LazyTensor:
    return LazyTensor(dtype, tensor.shape, lambda: tensor.read().to(dtype))
