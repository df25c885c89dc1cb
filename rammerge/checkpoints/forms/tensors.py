"""Tensors that are read when they are needed, and writing them into a safetensors model directory."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path

from rammerge.checkpoints.headers import TensorInfo
from rammerge.checkpoints.layout import TensorSpec, plan_layout
from rammerge.checkpoints.stored import INDEX
from rammerge.numerics.dtypes import from_torch
from rammerge.system.atomic import write_json
from rammerge.system.lazy import torch
from rammerge.system.reading import opened

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
    layout = plan_layout({name: _spec(name, tensor) for name, tensor in tensors.items()}, shard_bytes)
    for shard in layout.shards:
        with (directory / shard.file).open("wb") as output:
            output.write(shard.header)
            for placed in shard.tensors:
                output.write(_bytes(placed.name, tensors[placed.name]))
    if layout.index is not None:
        write_json(directory / INDEX, layout.index)


def _spec(name: str, tensor: LazyTensor) -> TensorSpec:
    dtype = from_torch(tensor.dtype)
    assert dtype is not None, f"{name} is {tensor.dtype}, which a conversion refuses before it writes"
    return TensorSpec(dtype, tensor.shape)


def _bytes(name: str, tensor: LazyTensor) -> memoryview:
    found = tensor.read()
    if (found.dtype, tuple(found.shape)) != (tensor.dtype, tensor.shape):
        raise AssertionError(f"{name} was announced as {tensor.dtype} {tensor.shape}, not {found.dtype} {found.shape}")
    flat = found.detach().contiguous().reshape(-1).view(torch.uint8)
    return flat.numpy().data


def _read(info: TensorInfo) -> torch.Tensor:
    content = torch.empty(info.nbytes, dtype=torch.uint8)
    with opened(info.files) as read:
        info.fill(0, content.numpy().data, read)
    return content.view(info.dtype.torch_dtype).reshape(info.shape)
