"""Finding the base's stored tensors by the names that an adapter gives them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path

from rammerge.checkpoints.checkpoint import Checkpoint
from rammerge.checkpoints.forms.architecture import Architecture
from rammerge.checkpoints.forms.lora_settings import LoraSettings
from rammerge.checkpoints.forms.tensors import LazyTensor
from rammerge.checkpoints.tying import is_tied, may_be_tied, text_setting
from rammerge.errors import InputError
from rammerge.system.reading import quote

# The tasks of models that generate. An adapter for any other task has a head that the base does not have.
_GENERATING = (None, "CAUSAL_LM", "SEQ_2_SEQ_LM")


class AdapterNames:
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
