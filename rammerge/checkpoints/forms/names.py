"""Removing the prefixes and wrappers that trainers add to the names of parameters."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import TypeVar

_T = TypeVar("_T")

# Wrappers of modules, anywhere in a name: torch.compile, FSDP, activation checkpointing. No architecture uses them.
_WRAPPERS = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.", "_forward_module.")
# Wrappers of whole models: DDP and DeepSpeed, TRL's models with a value head.
_PREFIXES = ("module.", "pretrained_model.")
# PEFT's wrapper. The model with the adapter may be kept under any name.
_PEFT = "base_model.model."


def bare(name: str) -> str:
    """Return the name of a parameter without known wrappers and prefixes."""
    for wrapper in _WRAPPERS:
        name = name.replace(wrapper, "")
    name = name.rpartition(_PEFT)[2]
    while prefix := next((prefix for prefix in _PREFIXES if name.startswith(prefix)), None):
        name = name.removeprefix(prefix)
    return name


def strip(tensors: Mapping[str, _T]) -> dict[str, _T]:
    """Return `tensors` under their bare names. Tensors with equal bare names keep their full names."""
    names = {name: bare(name) for name in tensors}
    seen: dict[str, int] = {}
    for name in names.values():
        seen[name] = seen.get(name, 0) + 1
    return {names[name] if seen[names[name]] == 1 else name: tensor for name, tensor in tensors.items()}


def prefixes(names: Iterable[str], wanted: Collection[str]) -> list[str]:
    """Return the sorted prefixes, including "", under which all of `wanted` are among `names`.

    A state dict may contain a model under a key such as `model` or `policy`, and several models under different keys.
    """
    if not wanted:
        return []
    known = frozenset(names)
    longest = max(wanted, key=len)
    found = {name.removesuffix(longest) for name in known if name == longest or name.endswith(f".{longest}")}
    return sorted(prefix for prefix in found if all(f"{prefix}{name}" in known for name in wanted))


def under(prefix: str, tensors: Mapping[str, _T]) -> dict[str, _T]:
    """Return the tensors whose names start with `prefix`, under the rest of their names."""
    return {name[len(prefix) :]: tensor for name, tensor in tensors.items() if name.startswith(prefix)}
