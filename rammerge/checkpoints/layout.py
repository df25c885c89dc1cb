"""Planning the place of each byte of a model before any data exists: shards, headers and the index."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import prod
from typing import Any

from huggingface_hub import split_state_dict_into_shards_factory

from rammerge.numerics.dtypes import DType


@dataclass(frozen=True)
class TensorSpec:
    """A tensor to write."""

    dtype: DType
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Size of the elements in bytes."""
        return prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True)
class OutputTensor:
    """One tensor of a shard: `nbytes` at `offset` of the file."""

    name: str
    dtype: DType
    shape: tuple[int, ...]
    offset: int
    nbytes: int


@dataclass(frozen=True)
class Shard:
    """One output file: `header` (length prefix included), then the tensors in the order of their data."""

    file: str
    header: bytes
    tensors: tuple[OutputTensor, ...]
    size: int


@dataclass(frozen=True)
class Layout:
    """All output files; `index` is the content of model.safetensors.index.json when there are several."""

    shards: tuple[Shard, ...]
    index: dict[str, Any] | None

    @property
    def size(self) -> int:
        """Bytes of all shards."""
        return sum(shard.size for shard in self.shards)

    def part(self, number: int, of: int) -> tuple[Shard, ...]:
        """Return the shards of a part, from 1 to `of`: neighbors, and about as many bytes in each part."""
        found = zip(self.shards, places([shard.size for shard in self.shards], of), strict=True)
        return tuple(shard for shard, place in found if place == number)


def places(sizes: Sequence[int], of: int) -> list[int]:
    """Return in which part, from 1 to `of`, each of some things is: neighbors together, and parts about equal."""
    middles = [end - size / 2 for end, size in zip(accumulate(sizes), sizes, strict=True)]
    return [min(of, int(of * middle / max(1, sum(sizes))) + 1) for middle in middles]


def plan_layout(tensors: Mapping[str, TensorSpec], shard_size: int) -> Layout:
    """Lay out a model in safetensors files, in the order of the tensors' names.

    Args:
        tensors: what to write, by name.
        shard_size: largest size in bytes of a shard's data, if no single tensor is larger.
    """
    ordered = dict(sorted(tensors.items()))
    split = split_state_dict_into_shards_factory(
        ordered,
        get_storage_size=lambda tensor: tensor.nbytes,
        filename_pattern="model{suffix}.safetensors",
        max_shard_size=shard_size,
    )
    shards = tuple(
        _plan_shard(file, {name: ordered[name] for name in names})
        for file, names in sorted(split.filename_to_tensors.items())
    )
    index = {"metadata": dict(split.metadata), "weight_map": dict(sorted(split.tensor_to_filename.items()))}
    return Layout(shards, index if split.is_sharded else None)


def _plan_shard(file: str, tensors: Mapping[str, TensorSpec]) -> Shard:
    # Wide dtypes first, as in safetensors itself, so that every tensor is aligned to its element size.
    ordered = sorted(tensors.items(), key=lambda item: (-item[1].dtype.itemsize, item[0]))
    entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    position = 0
    for name, tensor in ordered:
        end = position + tensor.nbytes
        entries[name] = {"dtype": tensor.dtype.code, "shape": list(tensor.shape), "data_offsets": [position, end]}
        position = end
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    header = len(text).to_bytes(8, "little") + text
    placed = tuple(
        OutputTensor(name, tensor.dtype, tensor.shape, len(header) + entries[name]["data_offsets"][0], tensor.nbytes)
        for name, tensor in ordered
    )
    return Shard(file, header, placed, len(header) + position)
