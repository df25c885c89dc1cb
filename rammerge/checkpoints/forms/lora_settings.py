"""The settings of a PEFT LoRA adapter and their meaning for the merged weights."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rammerge.errors import InputError
from rammerge.system.reading import quote, read_json_object

# Settings that the code here and in rammerge.checkpoints.forms.adapter handles, or that do not affect the weights. Any
# other setting that is switched on, and is not in NOT_MERGED, is a variant of LoRA whose arithmetic is not known here.
UNDERSTOOD = frozenset(
    {
        "alpha_pattern", "auto_mapping", "base_model_name_or_path", "bias", "ensure_weight_tying", "eva_config",
        "exclude_modules", "fan_in_fan_out", "inference_mode", "init_lora_weights", "layers_pattern",
        "layers_to_transform", "lora_alpha", "lora_bias", "lora_dropout", "megatron_core", "modules_to_save",
        "peft_type", "peft_version", "qalora_group_size", "r", "rank_pattern", "revision", "runtime_config",
        "target_modules", "task_type", "trainable_token_indices", "use_dora", "use_rslora",
    }
)  # fmt: skip

_BY_PEFT = "merge it with PEFT's merge_and_unload and save the whole model"
_RETRAIN = "train a plain LoRA, which has merged weights"
# Settings that are refused when switched on: the reason, and what the user can do.
NOT_MERGED: Mapping[str, tuple[str, str]] = {
    "alora_invocation_tokens": ("applies the adapter only after certain tokens, which no weights can do", _RETRAIN),
    "arrow_config": ("chooses among adapters for each token, which no weights can do", _RETRAIN),
    "corda_config": ("changes the base when the adapter is made", _BY_PEFT),
    "kasa_config": ("changes the base when the adapter is made", _BY_PEFT),
    "layer_replication": ("adds layers, which the base does not have", "give a model with the base's layers"),
    "loftq_config": ("changes the base when the adapter is made", _BY_PEFT),
    "lora_ga_config": ("changes the base when the adapter is made", _BY_PEFT),
    "megatron_config": ("names modules as Megatron does", "export the adapter to PEFT's names, or the whole model"),
    "monteclora_config": ("has other weights in addition to LoRA's", _BY_PEFT),
    "target_parameters": ("adapts parameters as they are in memory, not on disk", _BY_PEFT),
    "use_bdlora": ("stores its matrices by blocks", _BY_PEFT),
    "use_qalora": ("adapts quantized weights, which neither this program nor PEFT merges", _RETRAIN),
    "velora_config": ("has other weights in addition to LoRA's", _BY_PEFT),
}
# Configurations of initializations that PEFT stores for every adapter, or warns about and ignores. Only
# init_lora_weights decides.
_INERT_UNLESS = {"corda_config": "corda", "loftq_config": "loftq", "lora_ga_config": "lora_ga"}
# Initializations that do not change the base. With all others, loading an adapter changes the base, or the adapter
# starts from a different base.
_NEUTRAL_STARTS = frozenset({"gaussian", "eva", "orthogonal", "mica"})
# Adapters that are inputs of the model rather than changes of its weights.
_PROMPTS = frozenset(
    {
        "ADAPTION_PROMPT", "CARTRIDGE", "CPT", "MULTITASK_PROMPT_TUNING", "PREFIX_TUNING", "PROMPT_TUNING", "P_TUNING",
    }
)  # fmt: skip
# Adapters whose effect depends on the input.
_BY_INPUT = frozenset({"POLY", "SHADOW", "XLORA"})


@dataclass(frozen=True)
class LoraSettings:
    """The settings of an adapter that can be merged.

    Attributes:
        file: the file of the settings, for messages.
        config: its content.
    """

    file: Path
    config: Mapping[str, Any]

    @classmethod
    def read(cls, file: Path) -> LoraSettings:
        """Read `file`, an adapter_config.json.

        Raises:
            InputError: the adapter is not a LoRA that can be merged exactly; the message says why and what to do.
        """
        settings = cls(file, read_json_object(file))
        settings.check()
        return settings

    def check(self) -> None:
        """Refuse settings that cannot be merged exactly."""
        kind = self.config.get("peft_type")
        if str(kind).upper() != "LORA":
            raise InputError(f"{self.file} describes a {quote(kind)} adapter and only LORA adapters can be merged; "
                             f"{_fix_for_kind(str(kind).upper())}")  # fmt: skip
        for key, value in sorted(self.config.items()):
            start = _INERT_UNLESS.get(key)
            if not value or key in UNDERSTOOD or (start and self.config.get("init_lora_weights") != start):
                continue
            reason, fix = NOT_MERGED.get(key, ("is unknown here, so it cannot be merged exactly", _BY_PEFT))
            raise InputError(f"{self.file} uses {quote(key)}, which {reason}; {fix}")
        start = self.config.get("init_lora_weights")
        if isinstance(start, str) and start.lower() not in _NEUTRAL_STARTS:
            raise InputError(
                f"{self.file} was started with init_lora_weights {quote(start)}, which changes the base; convert it to "
                "a plain LoRA with PEFT's save_pretrained(path_initial_model_for_weight_conversion=...)"
            )

    @property
    def dora(self) -> bool:
        """Whether the rows of the adapted weights are rescaled to a learned magnitude."""
        return bool(self.config.get("use_dora"))

    def scaling(self, module: str, rank: int) -> float:
        """Return the factor of the low-rank product of `module`, whose matrices have `rank`."""
        wanted = self._for_module("rank_pattern", module, self.config.get("r"))
        alpha = self._for_module("alpha_pattern", module, self.config.get("lora_alpha"))
        if not isinstance(alpha, int | float) or wanted != rank:
            raise InputError(
                f"{self.file} gives {module} rank {quote(wanted)} and alpha {quote(alpha)}, but its weights have rank "
                f"{rank}; take configuration and weights of one adapter"
            )
        return alpha / math.sqrt(rank) if self.config.get("use_rslora") else alpha / rank

    def token_indices(self, module: str) -> list[int]:
        """Return the rows of the embedding or head `module` that were trained (PEFT's trainable_token_indices)."""
        found = self.config.get("trainable_token_indices")
        if isinstance(found, dict):
            found = next((value for name, value in found.items() if f".{module}".endswith(f".{name}")), None)
        if not isinstance(found, list) or not all(type(index) is int and index >= 0 for index in found):
            raise InputError(
                f"{self.file} does not say in trainable_token_indices which rows of {module} were trained; save the "
                "adapter again"
            )
        return found

    def _for_module(self, key: str, module: str, default: Any) -> Any:
        patterns = self.config.get(key) or {}
        try:
            matching = (value for name, value in patterns.items() if re.match(rf"(.*\.)?({name})$", module))
            return next(matching, default)
        except (re.error, AttributeError) as error:
            raise InputError(
                f"{self.file} has a {key} that is not a map of patterns; save the adapter again"
            ) from error


def _fix_for_kind(kind: str) -> str:
    if kind in _PROMPTS:
        return "such an adapter adds inputs and changes no weights, so train a LoRA"
    if kind in _BY_INPUT:
        return "such an adapter depends on each input, which no weights can do, so train a LoRA"
    return _BY_PEFT
