"""torch.distributed.checkpoint directories: the pickle `.metadata` locates each part in the `*.distcp` files."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

from rammerge.checkpoints.forms.parts import Part, assemble, fault
from rammerge.checkpoints.forms.pickled import Inert, load_metadata, load_tensor
from rammerge.checkpoints.forms.tensors import LazyTensor
from rammerge.errors import InputError
from rammerge.system.lazy import torch
from rammerge.system.reading import list_directory, open_regular, quote, read_exactly, read_json_object

METADATA = ".metadata"
# Where accelerate, which transformers' and TRL's trainers use, puts the model of a sharded checkpoint.
IN_TRAINER = "pytorch_model_fsdp_0"


def is_megatron(directory: Path) -> bool:
    """Return whether Megatron wrote the checkpoint: its tensors have names and shapes of Megatron's own."""
    names = {entry.name for entry in list_directory(directory)}
    if "common.pt" in names:
        return True
    return "metadata.json" in names and "sharded_backend" in read_json_object(directory / "metadata.json")


def distributed_files(directory: Path) -> list[Path]:
    """Return `.metadata` and the `*.distcp` files of `directory`."""
    names = [entry.name for entry in list_directory(directory)]
    return [directory / name for name in names if name == METADATA or name.endswith(".distcp")]


def read_distributed(directory: Path) -> dict[str, LazyTensor]:
    """Return all tensors in a torch.distributed.checkpoint directory, assembled when read.

    The state dict may hold the model at its top or under keys, beside an optimizer's or other state; names begin with
    the keys that lead to them.

    Raises:
        InputError: the metadata do not describe such a directory, or do not match its files.
    """
    metadata = load_metadata(directory / METADATA)
    try:
        entries = {
            name: entry
            for name, entry in metadata.get("state_dict_metadata").items()
            if isinstance(name, str) and entry.is_a("TensorStorageMetadata")
        }
        places = {
            (index.get("fqn"), tuple(index.get("offset") or ())): place
            for index, place in metadata.get("storage_data").items()
        }
        if not entries:
            raise ValueError("it has no tensors")
        paths = metadata.get("planner_data")
        named = {_name(paths, entry): entry for entry in entries}
        return {
            name: _tensor(directory, name, entries[entry], entry, places)
            for name, entry in named.items()
            if not _is_optimizer(name)
        } or _refuse_optimizer()
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{directory / METADATA} does not describe a torch.distributed.checkpoint ({quote(str(error))[1:-1]}); "
            "save the checkpoint again"
        ) from error


def _name(paths: Any, entry: str) -> str:
    path = paths.get(entry) if isinstance(paths, dict) else None
    return ".".join(map(str, path)) if path else entry


def _is_optimizer(name: str) -> bool:
    return any(part.startswith("optim") for part in name.split("."))


def _refuse_optimizer() -> dict[str, LazyTensor]:
    raise ValueError("it holds an optimizer alone")


def _tensor(
    directory: Path, name: str, entry: Inert, entry_name: str, places: Mapping[tuple[Any, Any], Inert]
) -> LazyTensor:
    dtype, shape = entry.get("properties").state[0], tuple(entry.get("size"))
    if not isinstance(dtype, torch.dtype):
        raise TypeError(f"{name} has no dtype")
    parts = [
        _part(directory, name, dtype, chunk, places[entry_name, tuple(chunk.get("offsets"))])
        for chunk in entry.get("chunks")
    ]
    wrong = fault(shape, parts)
    if wrong:
        raise ValueError(f"{name}: {wrong}")
    return LazyTensor(dtype, shape, lambda: assemble(dtype, shape, parts))


def _part(directory: Path, name: str, dtype: torch.dtype, chunk: Inert, place: Inert) -> Part:
    file_name, offset, length = (place.get(key) for key in ("relative_path", "offset", "length"))
    if not isinstance(file_name, str) or "/" in file_name or not file_name.endswith(".distcp"):
        raise ValueError(f"{name} is stored in {file_name!r}")
    if place.get("transform_descriptors"):
        raise ValueError(f"{name} is stored transformed ({place.get('transform_descriptors')})")
    file, sizes = directory / file_name, tuple(chunk.get("sizes"))
    _check_range(file, offset, length, at_least=prod(sizes) * dtype.itemsize)

    def read() -> torch.Tensor:
        with open_regular(file) as (descriptor, _):
            found = load_tensor(read_exactly(descriptor, length, offset, file), file)
        if found.dtype != dtype or tuple(found.shape) != sizes:
            raise InputError(
                f"{file} has a different dtype or shape for {name} than {METADATA}; save the checkpoint again"
            )
        return found

    return Part(tuple(chunk.get("offsets")), sizes, read)


def _check_range(file: Path, offset: Any, length: Any, *, at_least: int) -> None:
    # Check before allocating: so far only the metadata claim this size.
    with open_regular(file) as (_, size):
        whole = type(offset) is int and type(length) is int and offset >= 0 and at_least <= length <= size - offset
    if not whole:
        raise InputError(f"{file} is truncated: its metadata places a tensor beyond its {size} bytes; copy it again")
