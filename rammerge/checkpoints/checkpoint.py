"""A checkpoint on disk: a directory with config.json and safetensors files, opened by its headers alone."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from rammerge.checkpoints.headers import TensorInfo
from rammerge.checkpoints.stored import main_set
from rammerge.checkpoints.tying import find_tied
from rammerge.errors import InputError
from rammerge.system.paths import expanded
from rammerge.system.reading import list_directory, read_json_object, refuse_os_error

if TYPE_CHECKING:
    from rammerge.checkpoints.patched.originals import OriginalFile

# What a conversion says of itself in the directory that it makes (rammerge.checkpoints.forms.conversion).
RECORD = "conversion.json"

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
        notes: how the checkpoint was found and converted, as sentences for the user.
        rank: the highest rank of the updates, for an agent that was an adapter; None if it is not known.
        originals: the weight files that a patch stands for (rammerge.checkpoints.patched); None for other checkpoints.
    """

    path: Path
    source: str
    revision: str | None
    config: Mapping[str, Any]
    tensors: Mapping[str, TensorInfo]
    tied: Mapping[str, str]
    notes: tuple[str, ...] = ()
    rank: int | None = None
    originals: tuple[OriginalFile, ...] | None = None

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
    files = [Path(entry) for entry in list_directory(directory) if _is_file(entry)]
    templates = directory / "additional_chat_templates"
    if templates.is_dir():
        files += [Path(entry) for entry in list_directory(templates) if _is_file(entry)]
    return tuple(sorted(file for file in files if not _NO_SIDECAR.fullmatch(file.name)))


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError as error:  # a loop of symbolic links
        raise refuse_os_error(Path(entry), error) from error


def open_checkpoint(path: Path, *, source: str | None = None, revision: str | None = None) -> Checkpoint:
    """Open the model directory `path` by its config.json and the headers of its safetensors files.

    As in transformers, `model.safetensors` comes before `model.safetensors.index.json`. A directory with neither may
    contain one safetensors file with a different name, or one complete set of shards.

    Raises:
        InputError: the directory, config.json, the index or a header cannot be read, or they contradict each other.
    """
    path = expanded(path).absolute()
    names = [entry.name for entry in list_directory(path)]
    if "config.json" not in names:
        raise InputError(f"{path} has no config.json, so it is not a checkpoint; give a directory of save_pretrained")
    config = read_json_object(path / "config.json")
    tensors = main_set(path, names).read()
    if not tensors:
        raise InputError(f"{path} stores no tensors; save the model again")
    checkpoint = checkpoint_of(path, config, tensors)
    notes, rank = _read_record(path) if RECORD in names else ((), None)
    return replace(checkpoint, source=source or str(path), revision=revision, notes=notes, rank=rank)


def checkpoint_of(path: Path, config: Mapping[str, Any], tensors: Mapping[str, TensorInfo]) -> Checkpoint:
    """Return the checkpoint of the directory `path` with the given content."""
    tied = find_tied(config, tensors)
    kept = {name: tensors[name] for name in sorted(tensors) if name not in tied}
    return Checkpoint(
        path, str(path), None, MappingProxyType(dict(config)), MappingProxyType(kept), MappingProxyType(tied)
    )


def _read_record(path: Path) -> tuple[tuple[str, ...], int | None]:
    """Return what a conversion noted for the user, and the rank of an adapter."""
    record = read_json_object(path / RECORD)
    notes, rank = record.get("notes"), record.get("rank")
    said = tuple(str(note) for note in notes) if isinstance(notes, list) else ()
    return said, rank if isinstance(rank, int) else None
