"""Conversion of other model formats, as RL trainers save them, into safetensors directories, once per content.

Each result is an entry of kind `converted` in rammerge.store: renamed into place when complete, verified at each use,
and made by one process at a time. Its `conversion.json` says what it was made from.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from rammerge import store
from rammerge.checkpoints.checkpoint import Checkpoint, find_sidecars, has_safetensors
from rammerge.checkpoints.digest import digest_checkpoint, digest_file
from rammerge.checkpoints.forms import adapter, distributed, verl
from rammerge.checkpoints.forms.pickled import load_state_dict
from rammerge.checkpoints.forms.tensors import LazyTensor, constant, write_model
from rammerge.errors import InputError, RammergeError
from rammerge.numerics.dtypes import from_torch
from rammerge.system.atomic import write_json
from rammerge.system.home import home
from rammerge.system.lazy import torch
from rammerge.system.reading import list_directory, quote, read_json_object
from rammerge.system.space import require_space

# Raise this when the same input is converted into different bytes.
VERSION = 1
RECORD = "conversion.json"
PICKLED = "pytorch_model.bin"
PICKLED_INDEX = "pytorch_model.bin.index.json"


@dataclass(frozen=True)
class Form:
    """A model in one of the formats that are converted.

    Attributes:
        name: the format's name for the user.
        files: the files that determine the tensors.
        read: returns the tensors, which are computed when read.
        places: directories to look for configuration and tokenizer; the first one with a config.json is used.
        base: the base, if the tensors depend on it.
    """

    name: str
    files: Sequence[Path]
    read: Callable[[], Mapping[str, LazyTensor]]
    places: Sequence[Path]
    base: Checkpoint | None = None


def as_safetensors(directory: Path, source: str, base: Checkpoint | None, progress: Callable[[str], None]) -> Path:
    """Return a directory of safetensors for `directory`, which contains none itself.

    It is the first of: the whole model that verl can save beside its shards; the conversion, made now or earlier, of a
    known format; `directory` itself, if it has no known format.

    Raises:
        InputError: the files cannot be read, or their content is not what the format requires.
        RammergeError: the result could not be written.
    """
    names = [entry.name for entry in list_directory(directory)]
    actor = verl.find_actor(directory, names)
    export = directory if actor is None else actor / "huggingface"
    if export.is_dir() and has_safetensors(entry.name for entry in list_directory(export)):
        return export
    form = _find_form(directory, names, actor, base)
    return directory if form is None else _convert(form, source, base, progress)


def _find_form(directory: Path, names: Sequence[str], actor: Path | None, base: Checkpoint | None) -> Form | None:
    if adapter.CONFIG in names:
        return _adapter_form(directory, base)
    if PICKLED in names or PICKLED_INDEX in names:
        return _pickled_form(directory, names)
    if actor is not None:
        return _verl_form(actor, base)
    for place in (directory, directory / distributed.IN_TRAINER):
        if (place / distributed.METADATA).exists():
            return _distributed_form(place, base)
    return None


def _convert(form: Form, source: str, base: Checkpoint | None, progress: Callable[[str], None]) -> Path:
    with ThreadPoolExecutor(max_workers=4) as pool:
        digests = dict(zip(map(str, form.files), (d.sha256 for d in pool.map(digest_file, form.files)), strict=True))
    sidecars = _sidecars(form, base)
    inputs = {
        "form": form.name,
        "files": sorted((Path(file).name, digest) for file, digest in digests.items()),
        "sidecars": {name: digest_file(file).sha256 for name, file in sorted(sidecars.items())},
        "base": digest_checkpoint(form.base).digest if form.base is not None else None,
    }

    def build(directory: Path) -> None:
        progress(f"converting {source} ({form.name})")
        tensors = form.read()
        _check_storable(source, tensors)
        require_space(
            directory,
            sum(tensor.nbytes for tensor in tensors.values()),
            what=f"the conversion of {source}",
            where=str(home()),
            fix="make room there or set RAMMERGE_HOME",
        )
        write_model(directory, tensors)
        for name, file in sidecars.items():
            (directory / name).parent.mkdir(exist_ok=True)
            shutil.copyfile(file, directory / name)
        record = {"source": source, "form": form.name, "version": VERSION, "files": digests, "base": inputs["base"]}
        write_json(directory / RECORD, record)

    try:
        return store.materialise("converted", store.key_of("convert", VERSION, inputs), build).path
    except OSError as error:
        raise RammergeError(
            f"{source} could not be converted below {home()} ({error.strerror}); make room there or set RAMMERGE_HOME"
        ) from error


def _adapter_form(directory: Path, base: Checkpoint | None) -> Form:
    if base is None:
        named = read_json_object(directory / adapter.CONFIG).get("base_model_name_or_path")
        raise InputError(f"{directory} is an adapter of {quote(named)}; give the base that it belongs to")
    files = adapter.adapter_files(directory)
    return Form("PEFT LoRA adapter", files, lambda: adapter.merge_adapter(directory, base), [directory], base)


def _pickled_form(directory: Path, names: Sequence[str]) -> Form:
    files = [directory / PICKLED]
    if PICKLED not in names:
        weight_map = read_json_object(directory / PICKLED_INDEX, unique_keys=True).get("weight_map")
        shards = sorted(set(map(str, weight_map.values()))) if isinstance(weight_map, dict) else []
        for shard in shards:
            if "/" in shard or not shard.endswith(".bin") or shard not in names:
                raise InputError(
                    f"{directory / PICKLED_INDEX} names the shard {quote(shard)}, which is not a file beside it; "
                    "finish the download or the copy"
                )
        files = [directory / PICKLED_INDEX, *(directory / shard for shard in shards)]
    return Form("pickled weights", files, lambda: _read_pickled(files), [directory])


def _read_pickled(files: Sequence[Path]) -> dict[str, LazyTensor]:
    tensors: dict[str, LazyTensor] = {}
    for file in files:
        if file.name == PICKLED_INDEX:
            continue
        for name, tensor in load_state_dict(file).items():
            if name in tensors:
                raise InputError(f"{file} stores {quote(name)} a second time; remove the stale shard")
            tensors[name] = constant(tensor)
    if not tensors:
        raise InputError(f"{files[0]} stores no tensors; save the model again")
    return tensors


def _verl_form(actor: Path, base: Checkpoint | None) -> Form:
    files = verl.rank_files(actor)
    # verl's own exporter writes bfloat16. With a known base, an agent is exported in the base's dtype.
    return Form(
        "verl FSDP shards",
        files,
        lambda: _exported(verl.read_ranks(files), base, torch.bfloat16),
        [actor / "huggingface", actor],
        base,
    )


def _distributed_form(directory: Path, base: Checkpoint | None) -> Form:
    files = distributed.distributed_files(directory)
    return Form(
        "torch.distributed.checkpoint",
        files,
        lambda: _exported(distributed.read_distributed(directory), base, None),
        [directory, directory.parent / "huggingface", directory.parent],
        base,
    )


def _exported(
    tensors: Mapping[str, LazyTensor], base: Checkpoint | None, otherwise: torch.dtype | None
) -> dict[str, LazyTensor]:
    """Round float32 tensors, the master weights of trainers, to the dtype of the base's tensors.

    Compared with a 16-bit base, float32 master weights would count as changed in every element.
    """

    def exported(name: str, tensor: LazyTensor) -> LazyTensor:
        known = base.tensors.get(name) if base is not None else None
        dtype = known.dtype.torch_dtype if known is not None else otherwise
        if tensor.dtype != torch.float32 or dtype is None or not dtype.is_floating_point:
            return tensor
        return LazyTensor(dtype, tensor.shape, lambda: tensor.read().to(dtype))

    return {name: exported(name, tensor) for name, tensor in tensors.items()}


def _sidecars(form: Form, base: Checkpoint | None) -> dict[str, Path]:
    """Return the files to copy by their path in the result, with a config.json; the base supplies missing ones."""
    for place in form.places:
        if (place / "config.json").is_file():
            return {file.relative_to(place).as_posix(): file for file in find_sidecars(place)}
    if base is None:
        raise InputError(f"{form.places[0]} has no config.json; copy it there from the base")
    lent = {file.relative_to(base.path).as_posix(): file for file in base.sidecars}
    own = next(place for place in form.places if place.is_dir())
    return lent | {file.relative_to(own).as_posix(): file for file in find_sidecars(own)}


def _check_storable(source: str, tensors: Mapping[str, LazyTensor]) -> None:
    for name, tensor in tensors.items():
        if from_torch(tensor.dtype) is None:
            raise InputError(
                f"{source} has {quote(name)} as {tensor.dtype}, which cannot be merged; save it as float32"
            )
