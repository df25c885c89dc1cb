"""Tensors that are read when they are needed, and writing them into a safetensors model directory."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path

from rammerge.checkpoints.checkpoint import INDEX, WEIGHTS
from rammerge.checkpoints.headers import TensorInfo
from rammerge.numerics.dtypes import from_torch
from rammerge.system.atomic import write_json
from rammerge.system.lazy import torch
from rammerge.system.reading import open_regular, read_into

SHARD_BYTES = 5_000_000_000


@dataclass(frozen=True)
class LazyTensor:
    """A tensor of known dtype and shape. `read()` brings its elements into memory."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    read: Callable[[], torch.Tensor]

    @property
    def nbytes(self) -> int:
        """Size of the elements in bytes."""
        return prod(self.shape) * self.dtype.itemsize


def stored(info: TensorInfo) -> LazyTensor:
    """Return the tensor that is stored in a safetensors file at `info`."""
    return LazyTensor(info.dtype.torch_dtype, info.shape, lambda: _read(info))


def constant(tensor: torch.Tensor) -> LazyTensor:
    """Return a tensor that is already in memory or mapped from a file."""
    return LazyTensor(tensor.dtype, tuple(tensor.shape), lambda: tensor)


def write_model(directory: Path, tensors: Mapping[str, LazyTensor], *, shard_bytes: int = SHARD_BYTES) -> None:
    """Write `tensors` into `directory` as safetensors, with one tensor in memory at a time.

    Tensors are distributed over shards in the order of their names. A shard has at most `shard_bytes` bytes of data, or
    is a single tensor. A single shard is `model.safetensors`; several have the usual names and an index.
    """
    shards = list(_shards(tensors, shard_bytes))
    if len(shards) == 1:
        _write_file(directory / WEIGHTS, {name: tensors[name] for name in shards[0]})
        return
    weight_map: dict[str, str] = {}
    for number, names in enumerate(shards, start=1):
        file = f"model-{number:05}-of-{len(shards):05}.safetensors"
        _write_file(directory / file, {name: tensors[name] for name in names})
        weight_map |= dict.fromkeys(names, file)
    total = sum(tensor.nbytes for tensor in tensors.values())
    write_json(directory / INDEX, {"metadata": {"total_size": total}, "weight_map": weight_map})


def _shards(tensors: Mapping[str, LazyTensor], shard_bytes: int) -> Iterator[list[str]]:
    names: list[str] = []
    size = 0
    for name in sorted(tensors):
        if names and size + tensors[name].nbytes > shard_bytes:
            yield names
            names, size = [], 0
        names.append(name)
        size += tensors[name].nbytes
    yield names


def _write_file(file: Path, tensors: Mapping[str, LazyTensor]) -> None:
    # Wide dtypes first, as in the reference implementation, so that every tensor is aligned.
    names = sorted(tensors, key=lambda name: (-tensors[name].dtype.itemsize, name))
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    position = 0
    for name in names:
        tensor = tensors[name]
        dtype = from_torch(tensor.dtype)
        assert dtype is not None, f"{name} is {tensor.dtype}, which a conversion refuses before it writes"
        header[name] = {
            "dtype": dtype.code,
            "shape": list(tensor.shape),
            "data_offsets": [position, position + tensor.nbytes],
        }
        position += tensor.nbytes
    content = json.dumps(header, separators=(",", ":")).encode()
    content += b" " * (-len(content) % 8)
    with file.open("wb") as output:
        output.write(struct.pack("<Q", len(content)) + content)
        for name in names:
            output.write(_bytes(name, tensors[name]))


def _bytes(name: str, tensor: LazyTensor) -> memoryview:
    found = tensor.read()
    if (found.dtype, tuple(found.shape)) != (tensor.dtype, tensor.shape):
        raise AssertionError(f"{name} was announced as {tensor.dtype} {tensor.shape}, not {found.dtype} {found.shape}")
    flat = found.detach().contiguous().reshape(-1).view(torch.uint8)
    return flat.numpy().data


def _read(info: TensorInfo) -> torch.Tensor:
    content = torch.empty(info.nbytes, dtype=torch.uint8)
    with open_regular(info.file) as (descriptor, _):
        read_into(descriptor, content.numpy().data, info.offset, info.file)
    return content.view(info.dtype.torch_dtype).reshape(info.shape)
