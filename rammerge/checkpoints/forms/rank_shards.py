"""Safetensors files that each rank wrote: torch's HuggingFaceStorageWriter with `save_distributed`.

The files are `shard-<S>-model-<I>-of-<N>.safetensors` without an index. If a tensor is cut, each file's metadata give
the offsets of its part (torch.distributed.checkpoint._hf_utils, "DCP_SHARDING_INFO").
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rammerge.checkpoints.forms.parts import Part, assemble, fault
from rammerge.checkpoints.forms.tensors import LazyTensor, stored
from rammerge.checkpoints.headers import TensorInfo, read_header_and_metadata
from rammerge.errors import InputError
from rammerge.numerics.dtypes import DType
from rammerge.system.reading import parse_json_object, quote

NAME = re.compile(r"shard-\d{5}-model-\d{5}-of-\d{5}\.safetensors")
_SHARDING = "DCP_SHARDING_INFO"

_Placed = tuple[tuple[int, ...], TensorInfo]


def read_rank_shards(files: Sequence[Path]) -> dict[str, LazyTensor]:
    """Return the tensors whose parts are in `files`. They are assembled when read.

    Raises:
        InputError: a file is not a safetensors file, or the parts do not add up to whole tensors.
    """
    placed: dict[str, list[_Placed]] = defaultdict(list)
    for file in files:
        tensors, metadata = read_header_and_metadata(file)
        places = parse_json_object(
            metadata.get(_SHARDING, "{}").encode("utf-8", "surrogatepass"), f"{_SHARDING} in {file}"
        )
        for name, tensor in tensors.items():
            placed[name].append((_offsets(file, tensor, places.get(name)), tensor))
    return {name: _tensor(files[0].parent, name, parts) for name, parts in placed.items()}


def _offsets(file: Path, tensor: TensorInfo, place: Any) -> tuple[int, ...]:
    offsets = place.get("saved_offsets") if isinstance(place, Mapping) else [0] * len(tensor.shape)
    if (
        not isinstance(offsets, list)
        or len(offsets) != len(tensor.shape)
        or not all(type(offset) is int and 0 <= offset < 2**63 for offset in offsets)
    ):
        raise InputError(
            f"{file} does not say where its part of {quote(tensor.name)} begins; save the checkpoint again"
        )
    return tuple(offsets)


def _tensor(directory: Path, name: str, placed: Sequence[_Placed]) -> LazyTensor:
    dtype: DType = placed[0][1].dtype
    ends = [tuple(map(sum, zip(offsets, info.shape, strict=True))) for offsets, info in placed]
    shape = tuple(map(max, zip(*ends, strict=True))) if len({len(end) for end in ends}) == 1 else ()
    parts = [Part(offsets, info.shape, partial(_read, info)) for offsets, info in placed]
    wrong = fault(shape, parts) or (
        "its parts have several dtypes" if any(i.dtype != dtype for _, i in placed) else None
    )
    if wrong:
        raise InputError(
            f"{directory} has shards of {quote(name)} that do not add up to a tensor ({wrong}); copy the files of all "
            "ranks, or join them with torch's consolidate_safetensors_files"
        )
    return LazyTensor(dtype.torch_dtype, shape, lambda: assemble(dtype.torch_dtype, shape, parts))


def _read(info: TensorInfo) -> Any:
    return stored(info).read()
