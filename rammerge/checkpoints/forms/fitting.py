"""Converting the tensors of a form to the base's names, layout and dtypes, with adapters merged."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rammerge.checkpoints.buffers import is_computed
from rammerge.checkpoints.checkpoint import Checkpoint
from rammerge.checkpoints.forms.adapter import adapter_rank, adds_nothing, merge_lora
from rammerge.checkpoints.forms.adapter_base import check_base
from rammerge.checkpoints.forms.adapter_files import CONFIG
from rammerge.checkpoints.forms.architecture import Architecture
from rammerge.checkpoints.forms.form import Form
from rammerge.checkpoints.forms.lora_settings import LoraSettings
from rammerge.checkpoints.forms.lora_state import holds_lora
from rammerge.checkpoints.forms.masters import rounded
from rammerge.checkpoints.forms.names import prefixes, strip, under
from rammerge.checkpoints.forms.tensors import LazyTensor
from rammerge.errors import InputError
from rammerge.system.lazy import torch
from rammerge.system.reading import quote, read_json_object

# verl's record of its training. Its shards contain the adapter's tensors without PEFT's configuration.
VERL_LORA = "lora_train_meta.json"


@dataclass(frozen=True)
class Fitted:
    """A form's tensors under the base's names.

    Attributes:
        tensors: the tensors, which are computed when read.
        untied: whether both a head and an embedding are among them although the base ties the two.
        notes: sentences about the agent for the user.
        rank: the highest rank of an adapter's updates; None for models that are no adapter.
    """

    tensors: Mapping[str, LazyTensor]
    untied: bool
    notes: tuple[str, ...]
    rank: int | None = None


def fit(form: Form, base: Checkpoint | None) -> Fitted:
    """Return the tensors of `form` in the layout of `base`, as far as they can be converted.

    Tensors that do not fit keep their names; the later comparison with the base reports them. Without a base the layout
    is the one in which transformers stores the form's own configuration.

    Raises:
        InputError: the form's files cannot be read, or contain an adapter that cannot be merged into `base`.
    """
    tensors = strip(form.read())
    if not form.adapter and not holds_lora(tensors):
        tensors, notes = _in_layout(form, tensors, base)
        tensors, rounding = rounded(tensors, base, form.masters)
        return Fitted(tensors, False, (*notes, *rounding))
    settings = _settings(form)
    if base is None:
        raise needs_base(form)
    notes = check_base(settings, base)
    where = form.files[-1] if form.adapter else form.where
    if reason := adds_nothing(where, settings, tensors):
        raise InputError(f"{where} changes nothing, because {reason}; give the trained adapter")
    merged, rounding = rounded(merge_lora(where, settings, tensors, base), base, form.masters)
    untied = bool(merged.keys() - base.tensors.keys())
    if untied:
        notes.append("it changes its embedding and its head differently, so they are stored apart")
    return Fitted(merged, untied, (*notes, *rounding), adapter_rank(where, tensors))


def needs_base(form: Form) -> InputError:
    """Return the error for an adapter without a base."""
    file = adapter_settings(form)
    named = quote(read_json_object(file).get("base_model_name_or_path")) if file is not None else "a base"
    return InputError(f"{form.where} is an adapter of {named}; give the base that it belongs to")


def lacking(base: Checkpoint, tensors: Mapping[str, Any]) -> list[str]:
    """Return the names of the base's tensors that are not among `tensors`, not counting computed buffers."""
    return [name for name in _required(base) if name not in tensors]


def fits(base: Checkpoint, tensors: Mapping[str, LazyTensor]) -> bool:
    """Return whether `tensors` include all of the base's, in its shapes. Matrices may have more rows."""
    return not lacking(base, tensors) and all(
        tensors[name].shape == base.tensors[name].shape
        or (len(tensors[name].shape) == 2 and tensors[name].shape[1:] == base.tensors[name].shape[1:])
        for name in _required(base)
    )


def equal(one: Mapping[str, LazyTensor], other: Mapping[str, LazyTensor]) -> bool:
    """Return whether two models have equal values in the tensors that both have, in any dtypes."""
    shared = sorted(one.keys() & other.keys())
    if any(one[name].shape != other[name].shape for name in shared):
        return False
    return all(torch.equal(*_alike(one[name].read(), other[name].read())) for name in shared)


def _alike(one: torch.Tensor, other: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return (one, other) if one.dtype == other.dtype else (one.to(torch.float64), other.to(torch.float64))


def _required(base: Checkpoint) -> list[str]:
    return [name for name, tensor in base.tensors.items() if not is_computed(name, tensor.shape)]


def _in_layout(
    form: Form, tensors: Mapping[str, LazyTensor], base: Checkpoint | None
) -> tuple[dict[str, LazyTensor], list[str]]:
    """Return `tensors` in the base's layout, whatever key they are under, and sentences about the conversion."""
    if base is not None:
        wanted: Collection[str] = _required(base)
        if found := _model_under(form, tensors, wanted):
            return found
        architecture = Architecture.of(base.config, base.tensors.keys())
    else:
        config = next((place / "config.json" for place in form.places if (place / "config.json").is_file()), None)
        architecture = Architecture.of(read_json_object(config)) if config and form.plain is None else None
    if architecture is None:
        return dict(tensors), []
    held = set(architecture.held) - set(architecture.model.all_tied_weights_keys)
    held -= {name for name in held if is_computed(name, architecture.held[name].shape)}
    chosen, notes = _model_under(form, tensors, held) or (dict(tensors), [])
    translated = architecture.translate(chosen)
    if translated is None or (base is not None and lacking(base, translated)):
        return dict(tensors), []
    return translated, notes


def _model_under(
    form: Form, tensors: Mapping[str, LazyTensor], wanted: Collection[str]
) -> tuple[dict[str, LazyTensor], list[str]] | None:
    """Return the tensors under the key of the state dict that contains all `wanted`, or None if there is none."""
    found = prefixes(tensors, wanted)
    if not found:
        return None
    models = {prefix: under(prefix, tensors) for prefix in found}
    first = next(iter(models))
    differing = next((prefix for prefix in models if not equal(models[first], models[prefix])), None)
    if differing is not None:
        raise InputError(
            f"{form.title} contains different models under {_key(first)} and under {_key(differing)}; save the "
            "agent's alone"
        )
    notes = [] if first in _USUAL_KEYS else [f"its weights were found under {_key(first)} in {form.title}"]
    return models[first], notes


_USUAL_KEYS = ("", "model.", "app.model.", "state_dict.", "module.")


def _key(prefix: str) -> str:
    return f"the key {prefix.rstrip('.')!r}" if prefix else "no key"


def adapter_settings(form: Form) -> Path | None:
    """Return the file with the scaling of the adapter that `form` may contain, or None if there is none."""
    places = [form.where, form.where.parent, form.where.parent.parent]
    files = [place / name for place in places for name in (CONFIG, f"lora_adapter/{CONFIG}", VERL_LORA)]
    return next((file for file in files if file.is_file()), None)


def _settings(form: Form) -> LoraSettings:
    file = adapter_settings(form)
    if file is None:
        raise InputError(
            f"{form.where} contains a LoRA adapter among its tensors, but no file gives its alpha; put an "
            f"{CONFIG} beside them, such as "
            '{"peft_type": "LORA", "r": 8, "lora_alpha": 16}'
        )
    if file.name == VERL_LORA:
        return LoraSettings(file, {"peft_type": "LORA", **read_json_object(file)})
    return LoraSettings.read(file)
