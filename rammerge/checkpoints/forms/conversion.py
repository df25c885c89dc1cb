"""Conversion of other model formats, as RL trainers save them, into safetensors directories, once per content.

Each result is an entry of kind `converted` in rammerge.store: renamed into place when complete, verified at each use,
and made by one process at a time. Its `conversion.json` says what it was made from.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from rammerge import store
from rammerge.checkpoints.checkpoint import RECORD, Checkpoint, find_sidecars
from rammerge.checkpoints.digest import digest_checkpoint, digest_file
from rammerge.checkpoints.forms.fitting import adapter_settings, fit, lacking, needs_base
from rammerge.checkpoints.forms.form import Form
from rammerge.checkpoints.forms.lora_state import holds_lora
from rammerge.checkpoints.forms.masters import is_master
from rammerge.checkpoints.forms.tensors import LazyTensor, write_model
from rammerge.checkpoints.gathering import check_gathered
from rammerge.checkpoints.headers import TensorInfo
from rammerge.checkpoints.stored import StoredSet, is_main_set
from rammerge.checkpoints.tying import may_be_tied, with_untied_head
from rammerge.errors import InputError, RammergeError
from rammerge.numerics.dtypes import from_torch
from rammerge.system.atomic import write_json, write_text
from rammerge.system.home import home
from rammerge.system.reading import list_directory, quote, read_json_object
from rammerge.system.space import require_space

# Raise this when the same input is converted into different bytes.
VERSION = 2


def as_safetensors(form: Form, source: str, base: Checkpoint | None, progress: Callable[[str], None]) -> Path:
    """Return a directory of safetensors for `form`: its own directory if that can be used directly, else a conversion.

    Raises:
        InputError: the files of the form cannot be read, have wrong content, or do not fit `base`.
        RammergeError: the result could not be written.
    """
    if form.adapter and base is None:
        raise needs_base(form)
    if form.plain is not None and not _needs_conversion(form, form.plain, base):
        return form.where
    return _convert(form, source, base, progress)


def _needs_conversion(form: Form, plain: StoredSet, base: Checkpoint | None) -> bool:
    """Return whether plain safetensors must be converted to the base's layout or dtypes, and whether they can be."""
    names = [entry.name for entry in list_directory(form.where)]
    if "config.json" not in names or not is_main_set(plain, names):
        return True
    tensors = plain.read()
    if base is None or not is_in_other_layout(tensors, read_json_object(form.where / "config.json"), base):
        return False
    return holds_lora(tensors) or not lacking(base, tensors) or not lacking(base, fit(form, base).tensors)


def is_in_other_layout(tensors: Mapping[str, TensorInfo], config: Mapping[str, Any], base: Checkpoint) -> bool:
    """Return whether tensors of the base's kind of model have names, layouts or dtypes that are not the base's."""
    if not _same_kind(config, base.config):
        return False
    if holds_lora(tensors) or lacking(base, tensors):
        return True
    return any(is_master(tensor, base.tensors.get(name)) for name, tensor in tensors.items())


def _same_kind(config: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return config.get("model_type") == other.get("model_type")


def _convert(form: Form, source: str, base: Checkpoint | None, progress: Callable[[str], None]) -> Path:
    with ThreadPoolExecutor(max_workers=4) as pool:
        digests = dict(zip(map(str, form.files), (d.sha256 for d in pool.map(digest_file, form.files)), strict=True))
    sidecars = _sidecars(form, base)
    settings = adapter_settings(form)
    inputs = {
        "form": form.name,
        "files": sorted((Path(file).name, digest) for file, digest in digests.items()),
        "settings": digest_file(settings).sha256 if settings is not None else None,
        "sidecars": {name: digest_file(file).sha256 for name, file in sorted(sidecars.items())},
        "base": digest_checkpoint(base).digest if base is not None else None,
    }

    def build(directory: Path) -> None:
        progress(f"converting {source} ({form.name})")
        found = fit(form, base)
        _check_fit(form, found.tensors, base)
        _check_storable(source, found.tensors)
        require_space(
            directory,
            sum(tensor.nbytes for tensor in found.tensors.values()),
            what=f"the conversion of {source}",
            where=str(home()),
            fix="make room there or set RAMMERGE_HOME",
        )
        write_model(directory, found.tensors)
        _write_sidecars(directory, sidecars, untied=found.untied)
        record = {"source": source, "form": form.name, "version": VERSION, "files": digests, "base": inputs["base"]}
        write_json(directory / RECORD, {**record, "notes": list(found.notes), "rank": found.rank})

    try:
        return store.materialise("converted", store.key_of("convert", VERSION, inputs), build).path
    except OSError as error:
        raise RammergeError(
            f"{source} could not be converted below {home()} ({error.strerror}); make room there or set RAMMERGE_HOME"
        ) from error


def _sidecars(form: Form, base: Checkpoint | None) -> dict[str, Path]:
    """Return the files to copy by their path in the result, with a config.json; the base supplies missing ones."""
    for place in form.places:
        if (place / "config.json").is_file():
            return _sidecars_in(place)
    if base is None:
        raise InputError(f"{form.where} has weights ({form.name}) and no config.json; copy it there from the base")
    own = next(place for place in form.places if place.is_dir())
    tokenizers = [place / "tokenizer" for place in (form.where, *list(form.where.parents)[:2])]
    tokenizer = next((_sidecars_in(place) for place in tokenizers if place.is_dir()), {})
    return {**_sidecars_in(base.path), **tokenizer, **_sidecars_in(own)}


def _sidecars_in(place: Path) -> dict[str, Path]:
    return {file.relative_to(place).as_posix(): file for file in find_sidecars(place)}


def _write_sidecars(directory: Path, sidecars: Mapping[str, Path], *, untied: bool) -> None:
    for name, file in sidecars.items():
        (directory / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(file, directory / name)
    if untied:
        config = with_untied_head(read_json_object(directory / "config.json"))
        write_text(directory / "config.json", json.dumps(config, indent=2) + "\n")


def _check_fit(form: Form, tensors: Mapping[str, LazyTensor], base: Checkpoint | None) -> None:
    """Refuse tensors that do not fit before a whole model is written. The message can say more here than later."""
    for name, tensor in tensors.items():
        check_gathered(form.title, name, tensor.shape)
    missing = [name for name in lacking(base, tensors) if not may_be_tied(name)] if base is not None else []
    if not missing or base is None:
        return
    odd = next((name for name in sorted(tensors) if name not in base.tensors), None)
    raise InputError(
        f"{form.title} does not have the base's tensors: {missing[0]} is not there"
        f"{f' and {quote(odd)} is' if odd else ''}; {form.export}"
    )


def _check_storable(source: str, tensors: Mapping[str, LazyTensor]) -> None:
    for name, tensor in tensors.items():
        if from_torch(tensor.dtype) is None:
            raise InputError(
                f"{source} has {quote(name)} as {tensor.dtype}, which cannot be merged; save it as float32"
            )
