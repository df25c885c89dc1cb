"""Merging PEFT LoRA adapters into their base, tensor by tensor, with the arithmetic of PEFT's `merge_and_unload`.

W <- W + s * B A (LoRA, arXiv 2106.09685, section 4.1), with s = alpha / r, or alpha / sqrt(r) for rsLoRA
(arXiv 2312.03732); for DoRA (arXiv 2402.09353, eq. 5) W <- m * (W + s * B A) / ||W + s * B A||, the norm of each row.
As in PEFT by default, 16-bit adapters are computed in float32, and the sum is rounded once to the base's dtype. The
tests compare the result with PEFT bit for bit.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rammerge.checkpoints.checkpoint import ADAPTER, Checkpoint
from rammerge.checkpoints.forms.pickled import load_state_dict
from rammerge.checkpoints.forms.tensors import LazyTensor, constant, stored
from rammerge.checkpoints.headers import read_header
from rammerge.checkpoints.tying import is_tied
from rammerge.errors import InputError
from rammerge.system.lazy import torch
from rammerge.system.reading import list_directory, quote, read_json_object

CONFIG = "adapter_config.json"
PICKLED_ADAPTER = "adapter_model.bin"

# Settings that the code below handles, or that do not affect the merged weights. Any other setting that is switched on
# is a variant of LoRA whose arithmetic is not known here.
_UNDERSTOOD = {
    "alpha_pattern", "auto_mapping", "base_model_name_or_path", "bias", "ensure_weight_tying", "eva_config",
    "exclude_modules", "fan_in_fan_out", "inference_mode", "init_lora_weights", "layers_pattern",
    "layers_to_transform", "lora_alpha", "lora_bias", "lora_dropout", "megatron_core", "modules_to_save", "peft_type",
    "peft_version", "qalora_group_size", "r", "rank_pattern", "revision", "runtime_config", "target_modules",
    "task_type", "use_dora", "use_rslora",
}  # fmt: skip
# With these initializations, loading an adapter changes the base, or the adapter starts from a different base.
_BASE_CHANGING = re.compile(r"pissa|corda|olora|loftq|lora_ga", re.IGNORECASE)
_PART = re.compile(
    r"(?P<module>.+)\.(?P<part>lora_A|lora_B|lora_embedding_A|lora_embedding_B|lora_magnitude_vector)"
    r"(?:\.default)?(?P<leaf>\.weight|\.bias)?"
)
_WRAPPERS = re.compile(r"\.(base_layer|modules_to_save(\.default)?|original_module)(?=\.)")


# The adapter's tensors for one module of the base, by part: `lora_A`, `lora_B`, `lora_B.bias`, ...
_Parts = dict[str, LazyTensor]


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
    config = read_json_object(file)
    _check_config(file, config)
    modules, replaced = _sort(weights, base)
    dora = bool(config.get("use_dora"))
    for module, parts in modules.items():
        _check_parts(weights, module, parts, base, dora=dora)
    turned = _stored_input_first(config, modules, base)
    tensors = {name: stored(info) for name, info in base.tensors.items()}
    tensors |= {name: _cast(tensor, tensors[name].dtype) for name, tensor in replaced.items()}
    for module, parts in modules.items():
        scaling = _scaling(file, config, module, _rank(weights, module, parts))
        name = f"{module}.weight"
        tensors[name] = _adapted(tensors[name], parts, scaling, turned[module], dora=dora)
        if "lora_B.bias" in parts:
            bias = tensors[f"{module}.bias"]
            tensors[f"{module}.bias"] = _shifted(bias, parts["lora_B.bias"], scaling)
    return tensors


def _check_config(file: Path, config: Mapping[str, Any]) -> None:
    if str(config.get("peft_type")).upper() != "LORA":
        raise InputError(
            f"{file} describes a {quote(config.get('peft_type'))} adapter and only LORA adapters can be merged; "
            "merge it with PEFT's merge_and_unload and save the whole model"
        )
    odd = sorted(key for key, value in config.items() if value and key not in _UNDERSTOOD)
    if odd:
        raise InputError(
            f"{file} uses {quote(odd[0])}, which cannot be merged exactly; merge it with PEFT's merge_and_unload and "
            "save the whole model"
        )
    start = config.get("init_lora_weights")
    if isinstance(start, str) and _BASE_CHANGING.match(start):
        raise InputError(
            f"{file} was started with init_lora_weights {quote(start)}, which changes the base; convert it to a plain "
            "LoRA with PEFT's save_pretrained(path_initial_model_for_weight_conversion=...)"
        )


def _sort(weights: Path, base: Checkpoint) -> tuple[dict[str, _Parts], dict[str, LazyTensor]]:
    """Return the adapter's tensors by adapted module, and the tensors that replace one of the base by name."""
    modules: dict[str, _Parts] = defaultdict(dict)
    replaced: dict[str, LazyTensor] = {}
    names = _Names(base)
    for key, tensor in sorted(_read(weights).items()):
        name = key.removeprefix("base_model.model.")
        found = _PART.fullmatch(name)
        target = names.of(weights, f"{found['module']}.weight" if found else _WRAPPERS.sub("", name))
        if found:
            leaf = ".bias" if found["leaf"] == ".bias" else ""
            modules[target.removesuffix(".weight")][found["part"] + leaf] = tensor
        elif tensor.shape != base.tensors[target].shape:
            raise InputError(
                f"{weights} replaces {target} by a tensor of shape {list(tensor.shape)} and the base has "
                f"{list(base.tensors[target].shape)}; merge the adapter with PEFT and save the whole model"
            )
        else:
            replaced[target] = tensor
    return dict(modules), replaced


class _Names:
    """Finds the base's stored tensors by the names that their modules have in memory.

    transformers stores some composite models under `model.layers.0...` and calls them
    `model.language_model.layers.0...` in memory, or vice versa. Such a name is accepted when exactly one stored name
    differs from it only in this way.
    """

    def __init__(self, base: Checkpoint) -> None:
        self._base = base
        self._by_core: dict[str, list[str]] = defaultdict(list)
        for name in base.tensors:
            self._by_core[self._core(name)].append(name)

    def of(self, weights: Path, name: str) -> str:
        """Return the base's name for the tensor that the adapter in `weights` calls `name`."""
        if name in self._base.tensors:
            return name
        if name in self._base.tied or ("head" in name and is_tied(self._base.config)):
            raise InputError(
                f"{weights} adapts {quote(name)}, which the base ties to its embedding; merge the adapter with PEFT "
                "into a base whose head is untied, and use that base"
            )
        found = self._by_core.get(self._core(name), [])
        if len(found) != 1:
            raise InputError(f"{weights} adapts {quote(name)}, which the base does not have; name the adapter's base")
        return found[0]

    @staticmethod
    def _core(name: str) -> str:
        return ".".join(part for part in name.split(".") if part not in ("model", "language_model"))


def _read(weights: Path) -> dict[str, LazyTensor]:
    if weights.name == ADAPTER:
        return {name: stored(info) for name, info in read_header(weights).items()}
    return {name: constant(tensor) for name, tensor in load_state_dict(weights).items()}


def _check_parts(weights: Path, module: str, parts: _Parts, base: Checkpoint, *, dora: bool) -> None:
    linear = {"lora_A", "lora_B"} | ({"lora_magnitude_vector"} if dora else set())
    embedding = {"lora_embedding_A", "lora_embedding_B"}
    if parts.keys() - {"lora_B.bias"} != linear and (dora or parts.keys() != embedding):
        raise InputError(
            f"{weights} has {', '.join(sorted(parts))} for {module}, which cannot be merged exactly; merge it with "
            "PEFT's merge_and_unload and save the whole model"
        )
    first, second = (parts[name] for name in sorted(parts.keys() & {"lora_A", "lora_B", *embedding}))
    wanted = base.tensors[f"{module}.weight"].shape
    if not len(first.shape) == len(second.shape) == len(wanted) == 2 or second.shape[1] != first.shape[0]:
        raise InputError(
            f"{weights} adapts {module}, which is not a matrix; merge it with PEFT and save the whole model"
        )
    product = second.shape[0], first.shape[1]
    if product not in (wanted, wanted[::-1]):
        raise InputError(
            f"{weights} adapts {module} by {list(product)} and the base has {list(wanted)}; name the adapter's base"
        )
    if "lora_B.bias" in parts and f"{module}.bias" not in base.tensors:
        raise InputError(f"{weights} has a bias for {module} and the base has none; name the adapter's base")


def _stored_input_first(config: Mapping[str, Any], modules: Mapping[str, _Parts], base: Checkpoint) -> dict[str, bool]:
    """Return for each module whether its weight is stored transposed (PEFT's fan_in_fan_out, as in GPT-2).

    PEFT knows this from the module's class. Here a shape that is not square decides. Square weights follow the other
    weights. Where all are square, the adapter's own setting decides.
    """
    told: dict[str, bool] = {}
    for module, parts in modules.items():
        if "lora_embedding_A" in parts:
            told[module] = True
            continue
        out_features, in_features = parts["lora_B"].shape[0], parts["lora_A"].shape[1]
        if out_features != in_features:
            told[module] = base.tensors[f"{module}.weight"].shape == (in_features, out_features)
    linear = [turned for module, turned in told.items() if "lora_A" in modules[module]]
    otherwise = any(linear) if linear else bool(config.get("fan_in_fan_out"))
    return {module: told.get(module, otherwise) for module in modules}


def _rank(weights: Path, module: str, parts: _Parts) -> int:
    part = parts["lora_A"] if "lora_A" in parts else parts["lora_embedding_A"]
    if part.shape[0] == 0:
        raise InputError(f"{weights} has an empty adapter for {module}; gather the shards before saving it")
    return part.shape[0]


def _scaling(file: Path, config: Mapping[str, Any], module: str, rank: int) -> float:
    wanted = _for_module(file, config, "rank_pattern", module, config.get("r"))
    alpha = _for_module(file, config, "alpha_pattern", module, config.get("lora_alpha"))
    if not isinstance(alpha, int | float) or wanted != rank:
        raise InputError(f"{file} gives {module} rank {wanted} and alpha {alpha}, but its weights have rank {rank}")
    return alpha / math.sqrt(rank) if config.get("use_rslora") else alpha / rank


def _for_module(file: Path, config: Mapping[str, Any], key: str, module: str, default: Any) -> Any:
    patterns = config.get(key) or {}
    try:
        return next((value for name, value in patterns.items() if re.match(rf"(.*\.)?({name})$", module)), default)
    except (re.error, AttributeError) as error:
        raise InputError(f"{file} has a {key} that is not a map of patterns; save the adapter again") from error


def _cast(tensor: LazyTensor, dtype: torch.dtype) -> LazyTensor:
    return LazyTensor(dtype, tensor.shape, lambda: tensor.read().to(dtype))


def _adapted(weight: LazyTensor, parts: _Parts, scaling: float, turned: bool, *, dora: bool) -> LazyTensor:
    def read() -> torch.Tensor:
        base = weight.read()
        if "lora_embedding_A" in parts:
            delta = _product(parts["lora_embedding_A"], parts["lora_embedding_B"], turned, scaling)
            return base + delta.to(base.dtype)  # only here PEFT rounds before it adds
        delta = _product(parts["lora_A"], parts["lora_B"], turned, scaling)
        if not dora:
            return (base + delta).to(base.dtype)
        magnitude = _widened(parts["lora_magnitude_vector"])
        sum_ = base + delta
        norm: torch.Tensor = torch.linalg.norm(sum_.T if turned else sum_, dim=1)
        factor = (magnitude / norm).view(-1, 1)
        return ((factor.T if turned else factor) * sum_).to(base.dtype)

    return LazyTensor(weight.dtype, weight.shape, read)


def _product(first: LazyTensor, second: LazyTensor, turned: bool, scaling: float) -> torch.Tensor:
    product = _widened(second) @ _widened(first)
    return (product.T if turned else product) * scaling


def _shifted(bias: LazyTensor, change: LazyTensor, scaling: float) -> LazyTensor:
    return LazyTensor(bias.dtype, bias.shape, lambda: (bias.read() + _widened(change) * scaling).to(bias.dtype))


def _widened(tensor: LazyTensor) -> torch.Tensor:
    found = tensor.read()
    return found.float() if found.dtype in (torch.float16, torch.bfloat16) else found
