"""A checkpoint on disk: a directory with config.json and safetensors files, opened by its headers alone."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from rammerge.checkpoints.headers import TensorInfo, read_header
from rammerge.checkpoints.tying import find_tied
from rammerge.errors import InputError
from rammerge.system.reading import list_directory, quote, read_json_object

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
ADAPTER = "adapter_model.safetensors"

# Weights in any format, trainer state, and files that a merge writes itself. Every other file is copied with the model.
_NO_SIDECAR = re.compile(
    r".*\.(safetensors|bin|pt|pth|pkl|gguf|ggml|h5|msgpack|onnx|ot|distcp|npz|tmp|lock|partial)"
    r"|.*\.index\.json|\..*|README\.md|rammerge\.json|conversion\.json|adapter_config\.json|fsdp_config\.json|training\.json|trainer_state\.json|global_step.*",
    re.DOTALL | re.IGNORECASE,
)


@dataclass(frozen=True)
class Checkpoint:
    """An opened model directory. Only config.json and the headers have been read.

    Attributes:
        path: absolute directory with config.json and the safetensors files.
        source: the name that the user gave.
        revision: commit SHA if the checkpoint comes from a hub.
        config: config.json.
        tensors: the tensors by sorted name; a tied tensor is listed once.
        tied: alias -> canonical name, for tensors that are stored under two names (rammerge.checkpoints.tying).
    """

    path: Path
    source: str
    revision: str | None
    config: Mapping[str, Any]
    tensors: Mapping[str, TensorInfo]
    tied: Mapping[str, str]

    @property
    def weight_files(self) -> tuple[Path, ...]:
        """The safetensors files that hold `tensors`, sorted."""
        return tuple(sorted({tensor.file for tensor in self.tensors.values()}))

    @property
    def sidecars(self) -> tuple[Path, ...]:
        """The files that belong to the weights, sorted: configurations, tokenizer, chat templates, model code."""
        return find_sidecars(self.path)


def find_sidecars(directory: Path) -> tuple[Path, ...]:
    """Return the sorted files of a model directory that belong to its weights, whatever the weights' format."""
    files = [Path(entry) for entry in list_directory(directory) if entry.is_file()]
    templates = directory / "additional_chat_templates"
    if templates.is_dir():
        files += [Path(entry) for entry in list_directory(templates) if entry.is_file()]
    return tuple(sorted(file for file in files if not _NO_SIDECAR.fullmatch(file.name)))


def open_checkpoint(path: Path, *, source: str | None = None, revision: str | None = None) -> Checkpoint:
    """Open the model directory `path` by its config.json and the headers of its safetensors files.

    As in transformers, `model.safetensors` comes before `model.safetensors.index.json`. A directory with neither may
    contain a single safetensors file with a different name.

    Raises:
        InputError: the directory, config.json, the index or a header cannot be read, or they contradict each other.
    """
    path = Path(path).expanduser().absolute()
    names = [entry.name for entry in list_directory(path)]
    if "config.json" not in names:
        raise InputError(f"{path} has no config.json, so it is not a checkpoint; give a directory of save_pretrained")
    config = read_json_object(path / "config.json")
    tensors = _read_tensors(path, names)
    if not tensors:
        raise InputError(f"{path} stores no tensors; save the model again")
    tied = find_tied(config, tensors)
    kept = {name: tensors[name] for name in sorted(tensors) if name not in tied}
    return Checkpoint(
        path, source or str(path), revision, MappingProxyType(config), MappingProxyType(kept), MappingProxyType(tied)
    )


def has_safetensors(names: Iterable[str]) -> bool:
    """Return whether a directory with entries `names` contains the safetensors files of a whole model."""
    return any(name == INDEX or (name.endswith(".safetensors") and name != ADAPTER) for name in names)


def _read_tensors(path: Path, names: list[str]) -> dict[str, TensorInfo]:
    if WEIGHTS in names:
        return read_header(path / WEIGHTS)
    if INDEX in names:
        return _read_shards(path, frozenset(names))
    others = [name for name in names if name.endswith(".safetensors") and name != ADAPTER]
    if len(others) == 1:
        return read_header(path / others[0])
    if others:
        raise InputError(f"{path} has {len(others)} safetensors files and no {INDEX}; add the index of the shards")
    raise InputError(f"{path} has no safetensors weights; save the model with save_pretrained")


def _read_shards(path: Path, names: frozenset[str]) -> dict[str, TensorInfo]:
    index = path / INDEX
    weight_map = read_json_object(index, unique_keys=True).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise InputError(f"{index} has no weight_map; save the model again")
    for shard in weight_map.values():
        _check_shard_name(index, shard, names)
    tensors: dict[str, TensorInfo] = {}
    for shard in sorted(set(weight_map.values())):
        for name, tensor in read_header(path / shard).items():
            if name in tensors:
                raise InputError(
                    f"{path} stores {quote(name)} in {tensors[name].file.name} and in {shard}; remove the stale shard"
                )
            tensors[name] = tensor
    _check_index(index, weight_map, tensors)
    return tensors


def _check_shard_name(index: Path, shard: Any, names: frozenset[str]) -> None:
    # A shard must be a plain name beside the index. The file may be a link, as in the hub's cache.
    if not isinstance(shard, str) or not shard.endswith(".safetensors") or {"/", "\\", "\0"} & set(shard):
        raise InputError(
            f"{index} names the shard {quote(shard)}, which is not a safetensors file beside it; "
            "use an index of plain file names"
        )
    if shard not in names:
        raise InputError(f"{index} names the shard {quote(shard)}, which is missing; finish the download or the copy")


def _check_index(index: Path, weight_map: Mapping[str, str], tensors: Mapping[str, TensorInfo]) -> None:
    for name, shard in weight_map.items():
        if name not in tensors or tensors[name].file.name != shard:
            where = f"it is in {tensors[name].file.name}" if name in tensors else "no shard has it"
            raise InputError(f"{index} says that {shard} stores {quote(name)}, but {where}; save the model again")
