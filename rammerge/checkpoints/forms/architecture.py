"""The names and layouts that transformers gives the tensors of an architecture, in memory and on disk.

Since version 5 transformers uses different tensors in memory than on disk for many architectures: it fuses experts into
one tensor and renames parts. Trainers that save the state dict of the live model (verl's shards,
torch.distributed.checkpoint) save the names in memory. Translation uses transformers' own conversion tables, first in
the direction of `from_pretrained` and then in that of `save_pretrained`. So the tensors equal, bit for bit, those of
the trainer's export. Model code of a checkpoint is never run.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Any

from rammerge.checkpoints.buffers import is_computed
from rammerge.checkpoints.forms.classes import model_class, quiet
from rammerge.checkpoints.forms.tensors import LazyTensor
from rammerge.system.lazy import torch

# Settings that determine the number of modules. A configuration with far more modules than there are tensors does not
# belong to these tensors, and building it could take very long.
_MODULES = re.compile(r"layers|depth|blocks|experts")
_MODULES_BEYOND = 1000
# The number of converted groups of tensors that stay in memory. Models are written in the order of names, in which the
# two fused tensors of a layer's experts alternate.
_GROUPS_KEPT = 2

# A tensor of a group: its name, the pattern of the conversion table that it matches, and the tensor itself.
_Member = tuple[str, str, LazyTensor]


@dataclass(frozen=True)
class Architecture:
    """An architecture as transformers builds it, and the layout in which its tensors are stored.

    Attributes:
        model: the model on torch's meta device, without weights.
        held: the model's tensors in memory, by name.
        storing: transformers' conversions from memory to the stored layout, in their order.
    """

    model: Any
    held: Mapping[str, torch.Tensor]
    storing: Sequence[Any]

    @classmethod
    def of(cls, config: Mapping[str, Any], stored: Collection[str] | None = None) -> Architecture | None:
        """Return the architecture of `config`, or None if transformers does not know it.

        Args:
            config: a checkpoint's config.json.
            stored: the names of the tensors in the checkpoint, whose layout is then kept, as transformers keeps it.
                Without them the layout is transformers' default.
        """
        model = _build(config, len(stored or ()))
        if model is None:
            return None
        held = model.state_dict()
        return cls(model, held, _storing(model, held, stored))

    def translate(self, tensors: Mapping[str, LazyTensor]) -> dict[str, LazyTensor] | None:
        """Return `tensors` in the stored layout. Their names are those in memory or those of any release.

        Returns None if the tensors do not fit the architecture.
        """
        from transformers.conversion_mapping import get_model_conversion_mapping

        try:
            loading = get_model_conversion_mapping(self.model)
            held = self._convert(tensors, loading, partial(_held_name, self.model, self.held, *_split(loading)))
            return self._convert(held, self.storing, partial(_stored_name, *_split(self.storing)))
        except Exception:  # transformers' operations raise errors of many kinds for tensors that do not fit
            return None

    def stored_name(self, name: str) -> str | None:
        """Return the stored name of the single tensor that is called `name` in memory, or None if there is none."""
        held = self.held.get(name)
        if held is None:
            return None
        found = self.translate({name: LazyTensor(held.dtype, tuple(held.shape), lambda: held)}) or {}
        (stored,) = found if len(found) == 1 else (None,)
        return stored if stored is not None and found[stored].shape == tuple(held.shape) else None

    def tied(self) -> dict[str, str]:
        """Return alias -> kept name, as stored, for the tensors that the configuration ties."""
        pairs: Mapping[str, str] = self.model.all_tied_weights_keys
        names = {self.stored_name(alias): self.stored_name(kept) for alias, kept in pairs.items()}
        return {alias: kept for alias, kept in names.items() if alias is not None and kept is not None}

    def _convert(
        self, tensors: Mapping[str, LazyTensor], steps: Sequence[Any], rename: Callable[[str], tuple[str, str | None]]
    ) -> dict[str, LazyTensor]:
        """Apply `steps` to `tensors`. `rename` returns a tensor's new name and the pattern of its converter, if any."""
        from transformers.core_model_loading import dot_natural_key

        by_pattern = {pattern: step for step in _split(steps)[1] for pattern in step.source_patterns}
        result: dict[str, LazyTensor] = {}
        groups: dict[str, list[_Member]] = {}
        for name in sorted(tensors, key=dot_natural_key):
            renamed, pattern = rename(name)
            if pattern is None:
                result[renamed] = tensors[name]
            else:
                groups.setdefault(renamed, []).append((name, pattern, tensors[name]))
        memo = _Memo()
        for target, members in groups.items():
            convert = partial(self._apply, by_pattern[members[0][1]], target, members)
            result |= memo.outputs(convert)
        return result

    def _apply(
        self, step: Any, target: str, members: Sequence[_Member], read: Callable[[LazyTensor], torch.Tensor]
    ) -> dict[str, torch.Tensor]:
        converter = deepcopy(step)
        for name, pattern, tensor in members:
            converter.add_tensor(target, name, pattern, read(tensor))
        found = converter.convert(target, model=self.model, config=self.model.config)
        return {name: value[0] if isinstance(value, list) else value for name, value in found.items()}


class _Memo:
    """Tensors that are computed one group at a time. The last few groups stay in memory."""

    def __init__(self) -> None:
        self._kept: OrderedDict[int, dict[str, torch.Tensor]] = OrderedDict()
        self._numbers = count()

    def outputs(
        self, convert: Callable[[Callable[[LazyTensor], torch.Tensor]], dict[str, torch.Tensor]]
    ) -> dict[str, LazyTensor]:
        """Return the tensors that `convert` computes from those that its argument reads, when they are read."""
        group = next(self._numbers)

        def read(name: str) -> torch.Tensor:
            if group not in self._kept:
                self._kept[group] = convert(lambda tensor: tensor.read())
                while len(self._kept) > _GROUPS_KEPT:
                    self._kept.popitem(last=False)
            self._kept.move_to_end(group)
            return self._kept[group][name]

        planned = convert(lambda tensor: torch.empty(tensor.shape, dtype=tensor.dtype, device="meta"))
        return {
            name: LazyTensor(tensor.dtype, tuple(tensor.shape), partial(read, name)) for name, tensor in planned.items()
        }


def _build(config: Mapping[str, Any], tensors: int) -> Any:
    """Return the model of `config` on the meta device, or None if transformers cannot build it."""
    if max(_counts(config), default=0) > tensors + _MODULES_BEYOND:
        return None
    # The import takes seconds, so it is here, where only a translation waits for it.
    import transformers

    kind = model_class(config)
    if kind is None or config.get("model_type") not in transformers.CONFIG_MAPPING:
        return None
    try:
        with quiet(), torch.device("meta"):
            return kind._from_config(transformers.CONFIG_MAPPING[config["model_type"]].from_dict(dict(config)))
    except Exception:  # a configuration can make a model's constructor raise any error
        return None


def _storing(model: Any, held: Mapping[str, torch.Tensor], stored: Collection[str] | None) -> list[Any]:
    """Return the conversions that `save_pretrained` applies to a model that was loaded from names `stored`."""
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import PrefixChange

    if stored is None:
        steps = get_model_conversion_mapping(model, add_legacy=False)
        used = [step for step in steps if not isinstance(step, PrefixChange)]
    else:
        steps = get_model_conversion_mapping(model)
        split = _split(steps)
        if _is_as_held(model, held, stored, split[1]):
            return []
        for name in stored:
            _held_name(model, held, *split, name)
        used = [step for step in steps if step.was_used()]
    return [step.reverse_transform() for step in used[::-1]]


def _is_as_held(model: Any, held: Mapping[str, torch.Tensor], stored: Collection[str], converters: list[Any]) -> bool:
    """Tell whether all tensors have their names in memory, and none would be computed from one of the same name.

    A table's pattern may match a name that it has made itself, so that a step seems to be used.
    """
    from transformers.core_model_loading import rename_source_key

    aliases = model.all_tied_weights_keys
    own = [name for name, tensor in held.items() if name not in aliases and not is_computed(name, tuple(tensor.shape))]
    tried = deepcopy(converters)
    return set(own) <= set(stored) and not any(rename_source_key(name, [], tried)[1] for name in own)


def _split(steps: Sequence[Any]) -> tuple[list[Any], list[Any]]:
    """Return the conversions that only rename a tensor, and those that compute."""
    from transformers.core_model_loading import WeightConverter

    return (
        [step for step in steps if not isinstance(step, WeightConverter)],
        [step for step in steps if isinstance(step, WeightConverter)],
    )


def _held_name(
    model: Any, held: Mapping[str, torch.Tensor], renamings: list[Any], converters: list[Any], name: str
) -> tuple[str, str | None]:
    """Return the name in memory of the stored `name`, and the pattern of the converter that makes it, if any."""
    from transformers.core_model_loading import rename_source_key

    found: tuple[str, str | None] = rename_source_key(name, renamings, converters, model.base_model_prefix, held)
    if found[0] not in held and name in held:
        found = rename_source_key(name, [], [], model.base_model_prefix, held)
    return found


def _stored_name(renamings: list[Any], converters: list[Any], name: str) -> tuple[str, str | None]:
    from transformers.core_model_loading import rename_source_key

    found: tuple[str, str | None] = rename_source_key(name, renamings, converters, reverse=True)
    return found


def _counts(config: Mapping[str, Any]) -> Iterator[int]:
    """Yield the numbers of modules in `config` and its nested configurations."""
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from _counts(value)
        elif type(value) is int and _MODULES.search(str(key)):
            yield value
