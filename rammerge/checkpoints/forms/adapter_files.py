"""The files of a PEFT adapter in a directory of its own."""

from __future__ import annotations

from pathlib import Path

from rammerge.checkpoints.forms.pickled import load_state_dict
from rammerge.checkpoints.forms.tensors import LazyTensor, constant, stored
from rammerge.checkpoints.headers import read_header
from rammerge.checkpoints.stored import ADAPTER
from rammerge.errors import InputError
from rammerge.system.reading import list_directory

CONFIG = "adapter_config.json"
PICKLED_ADAPTER = "adapter_model.bin"


def adapter_files(directory: Path) -> list[Path]:
    """Return the files that define the adapter in `directory`: its configuration and its weights."""
    names = {entry.name for entry in list_directory(directory)}
    weights = next((name for name in (ADAPTER, PICKLED_ADAPTER) if name in names), None)
    if weights is None:
        raise InputError(f"{directory} has an {CONFIG} and no {ADAPTER}; save the adapter with save_pretrained")
    return [directory / CONFIG, directory / weights]


def read_adapter(weights: Path) -> dict[str, LazyTensor]:
    """Return the tensors in the file `weights` of an adapter."""
    if weights.name == ADAPTER:
        return {name: stored(info) for name, info in read_header(weights).items()}
    return {name: constant(tensor) for name, tensor in load_state_dict(weights).items()}
