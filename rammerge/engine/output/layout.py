"""Where each output byte goes, settled before any data exists: shards, headers, the index, and chunks of work."""

import json
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from huggingface_hub import split_state_dict_into_shards_factory

from rammerge.checkpoints.headers import TensorInfo
from rammerge.numerics.dtypes import DType


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


@dataclass(frozen=True, order=True)
class Unit:
    """Elements [start, stop) of one tensor."""

    tensor: str
    start: int
    stop: int

    @property
    def units(self) -> tuple["Unit", ...]:
        """Itself, as work of its own."""
        return (self,)


@dataclass(frozen=True)
class Piece:
    """A unit whose result begins `offset` bytes into a chunk."""

    unit: Unit
    offset: int


@dataclass(frozen=True)
class Chunk:
    """Bytes [start, stop) of a shard's file: of its header, and of tensors."""

    shard: Shard
    start: int
    stop: int
    pieces: tuple[Piece, ...]

    @property
    def header(self) -> bytes:
        """What of the header is in the chunk, at its beginning."""
        return self.shard.header[self.start : self.stop]

    @property
    def units(self) -> tuple[Unit, ...]:
        """What is to be computed for it."""
        return tuple(piece.unit for piece in self.pieces)


@dataclass(frozen=True)
class Layout:
    """All output files; `index` is the content of model.safetensors.index.json when there are several."""

    shards: tuple[Shard, ...]
    index: dict[str, Any] | None

    @property
    def size(self) -> int:
        """Bytes of all shards."""
        return sum(shard.size for shard in self.shards)


def plan_layout(tensors: Mapping[str, TensorInfo], dtype: DType, shard_size: int) -> Layout:
    """Lay out the merged model: float tensors in `dtype`, all others as the base stores them.

    Args:
        tensors: the base's tensors by name.
        dtype: the output dtype.
        shard_size: largest size in bytes of a shard's data, if no single tensor is larger.
    """
    outputs = {
        name: _Output(tuple(info.shape), dtype if info.dtype.is_floating_point else info.dtype, info.numel)
        for name, info in sorted(tensors.items())
    }
    split = split_state_dict_into_shards_factory(
        outputs,
        get_storage_size=lambda output: output.nbytes,
        filename_pattern="model{suffix}.safetensors",
        max_shard_size=shard_size,
    )
    shards = tuple(
        _plan_shard(file, {name: outputs[name] for name in names})
        for file, names in sorted(split.filename_to_tensors.items())
    )
    index = {"metadata": dict(split.metadata), "weight_map": dict(sorted(split.tensor_to_filename.items()))}
    return Layout(shards, index if split.is_sharded else None)


def cut(shard: Shard, nbytes: int) -> Iterator[Chunk]:
    """Cut a shard every `nbytes` of its file, a multiple of all element sizes; the last chunk is what is left."""
    ahead = deque(tensor for tensor in shard.tensors if tensor.nbytes)
    for start in range(0, shard.size, nbytes):
        stop = min(start + nbytes, shard.size)
        pieces = []
        while ahead and ahead[0].offset < stop:
            tensor, size = ahead[0], ahead[0].dtype.itemsize
            first, last = max(start, tensor.offset), min(stop, tensor.offset + tensor.nbytes)
            unit = Unit(tensor.name, (first - tensor.offset) // size, (last - tensor.offset) // size)
            pieces.append(Piece(unit, first - start))
            if last < tensor.offset + tensor.nbytes:
                break
            ahead.popleft()
        yield Chunk(shard, start, stop, tuple(pieces))


@dataclass(frozen=True)
class _Output:
    # What a tensor on the meta device would say; the first of those takes torch half a second.
    shape: tuple[int, ...]
    dtype: DType
    numel: int

    @property
    def nbytes(self) -> int:
        return self.numel * self.dtype.itemsize


def _plan_shard(file: str, tensors: Mapping[str, _Output]) -> Shard:
    # Wide dtypes first, as safetensors itself orders them, so that every tensor is aligned to its element size.
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
