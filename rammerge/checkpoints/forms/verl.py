"""verl's FSDP checkpoints: one pickled state dict per rank, `model_world_size_<N>_rank_<R>.pt`, with sharded tensors.

verl writes them to `global_step_<S>/actor/`, with the configuration and the tokenizer in `huggingface/` beside them
(verl/utils/checkpoint/fsdp_checkpoint_manager.py). A tensor is a DTensor (FSDP2, or FSDP1 on a device mesh), a
ShardedTensor (FSDP1 without a mesh), or complete on every rank.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

from rammerge.checkpoints.forms.parts import Part, assemble, fault
from rammerge.checkpoints.forms.pickled import Inert, attributes, is_backed, load_records
from rammerge.checkpoints.forms.tensors import LazyTensor, constant
from rammerge.errors import InputError
from rammerge.system.lazy import torch
from rammerge.system.reading import list_directory, quote, read_json_object

_RANK_FILE = re.compile(r"model_world_size_(\d{1,6})_rank_(\d{1,6})\.pt")


def find_actor(directory: Path, names: Sequence[str]) -> Path | None:
    """Return the directory of rank files: `directory`, whose entries are `names`, or `actor` in it; None if neither."""
    if any(_RANK_FILE.fullmatch(name) for name in names):
        return directory
    actor = directory / "actor"
    if "actor" in names and actor.is_dir() and any(_RANK_FILE.fullmatch(entry.name) for entry in list_directory(actor)):
        return actor
    return None


def rank_files(actor: Path) -> list[Path]:
    """Return the files of all ranks in order; InputError when one is missing."""
    found: dict[int, set[int]] = {}
    for entry in list_directory(actor):
        if match := _RANK_FILE.fullmatch(entry.name):
            found.setdefault(int(match[1]), set()).add(int(match[2]))
    if len(found) > 1:
        size = read_json_object(actor / "fsdp_config.json").get("world_size") if _has_config(actor) else None
        if not isinstance(size, int) or size not in found:
            raise InputError(f"{actor} has files of several world sizes {sorted(found)}; remove the stale ones")
        found = {size: found[size]}
    ((size, ranks),) = found.items()
    missing = sorted(set(range(size)) - ranks)
    if missing:
        raise InputError(f"{actor} lacks the files of {len(missing)} ranks (rank {missing[0]} first); copy all of them")
    return [actor / f"model_world_size_{size}_rank_{rank}.pt" for rank in range(size)]


def read_ranks(files: Sequence[Path]) -> dict[str, LazyTensor]:
    """Return the tensors whose parts are in the state dicts `files`, in the order of ranks; assembled when read.

    Raises:
        InputError: a file is not a state dict, or the parts of the ranks do not add up to whole tensors.
    """
    ranks = [_load(file) for file in files]
    for file, rank in zip(files, ranks, strict=True):
        if rank.keys() != ranks[0].keys():
            odd = min(rank.keys() ^ ranks[0].keys())
            raise InputError(f"{file} has other tensors than {files[0].name} ({quote(odd)}); copy one training step's")
    return {name: _tensor(files[0].parent, name, [rank[name] for rank in ranks]) for name in ranks[0]}


def _has_config(actor: Path) -> bool:
    return (actor / "fsdp_config.json").exists()


def _load(file: Path) -> Mapping[str, Any]:
    content = load_records(file)
    if not isinstance(content, dict) or not content or not all(isinstance(name, str) for name in content):
        raise InputError(f"{file} does not contain tensors by name; copy it again")
    return content


def _tensor(actor: Path, name: str, parts: Sequence[Any]) -> LazyTensor:
    # A sharded tensor is `_rebuild_from_type_v2(rebuild, type, (type, dtype, size, ...), state)`.
    try:
        if all(isinstance(part, torch.Tensor) and is_backed(part) for part in parts):
            return _replicated(parts)
        if all(isinstance(part, Inert) for part in parts):
            kind, states = parts[0].args[1], [part.args[3] for part in parts]
            shape, dtype = tuple(parts[0].args[2][2]), parts[0].args[2][1]
            sharded = kind.is_a("ShardedTensor")
            boxes = _sharded_parts(dtype, states) if sharded else _placed_parts(dtype, shape, states)
            wrong = fault(shape, boxes)
            if wrong:
                raise ValueError(wrong)
            return LazyTensor(dtype, shape, lambda: assemble(dtype, shape, boxes))
        raise TypeError("only some ranks shard it")
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{actor} has shards of {quote(name)} that do not add up to a tensor ({quote(str(error))[1:-1]}); export "
            "the model with `python -m verl.model_merger merge --backend fsdp`"
        ) from error


def _replicated(parts: Sequence[torch.Tensor]) -> LazyTensor:
    # Buffers and unsharded parameters are equal on every rank.
    if any(not _same(parts[0], part) for part in parts[1:]):
        raise ValueError("it differs between ranks without a placement")
    return constant(parts[0])


def _same(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.dtype == other.dtype and one.shape == other.shape and torch.equal(one, other)


def _sharded_parts(dtype: torch.dtype, states: Sequence[Any]) -> list[Part]:
    """Return the parts of a ShardedTensor. Its state on each rank is (local shards, metadata, ...)."""
    return [
        _local(tuple(shard.get("metadata").get("shard_offsets")), shard.get("tensor"), dtype)
        for state in states
        for shard in state[0]
    ]


def _placed_parts(dtype: torch.dtype, shape: tuple[int, ...], states: Sequence[Any]) -> list[Part]:
    """Return the parts of a DTensor. Its state on each rank has the local tensor and the spec.

    The spec's mesh gives the rank's coordinate, and the placements say along which dimensions of the mesh the tensor
    was cut. Along a Replicate dimension all coordinates hold the same, so the first one is used.
    """
    ranks = [attributes(state) for state in states]
    placements = ranks[0]["_spec"].get("placements")
    cut = [(axis, _cut_dimension(placement)) for axis, placement in enumerate(placements)]
    axes = [(axis, dimension) for axis, dimension in cut if dimension is not None]
    if len({dimension for _, dimension in axes}) != len(axes):
        raise ValueError("one dimension is cut twice")
    local: dict[tuple[int, ...], torch.Tensor] = {}
    for number, rank in enumerate(ranks):
        coordinate = _coordinate(rank["_spec"], number, len(cut))
        if not any(coordinate[axis] for axis, dimension in cut if dimension is None):
            local[tuple(coordinate[axis] for axis, _ in axes)] = rank["_local_tensor"]
    begins = [_begins(local, position, dimension) for position, (_, dimension) in enumerate(axes)]
    boxes: list[Part] = []
    for place, tensor in sorted(local.items()):
        offsets = [0] * len(shape)
        for position, (_, dimension) in enumerate(axes):
            offsets[dimension] = begins[position][place[position]]
        boxes.append(_local(tuple(offsets), tensor, dtype))
    return boxes


def _cut_dimension(placement: Inert) -> int | None:
    if placement.is_a("Replicate"):
        return None
    dimension = placement.get("dim")
    if not placement.is_a("Shard") or type(dimension) is not int:
        raise ValueError(f"its placement {placement.origin} is unknown")
    return dimension


def _coordinate(spec: Inert, rank: int, dimensions: int) -> tuple[int, ...]:
    known = spec.get("mesh").get("_coordinate_on_dim")
    if known is None and dimensions == 1:
        return (rank,)
    return tuple(known)


def _begins(local: Mapping[tuple[int, ...], torch.Tensor], position: int, dimension: int) -> list[int]:
    """Return the offset of each coordinate's part in `dimension`: the sum of the sizes before it."""
    sizes = {place[position]: tensor.shape[dimension] for place, tensor in local.items()}
    return [0, *accumulate(sizes[coordinate] for coordinate in range(len(sizes)))]


def _local(offsets: tuple[int, ...], tensor: torch.Tensor, dtype: torch.dtype) -> Part:
    if tensor.dtype != dtype or not is_backed(tensor):
        raise TypeError(f"a part of it is {tensor.dtype} of {tensor.untyped_storage().nbytes()} bytes")
    return Part(offsets, tuple(tensor.shape), lambda: tensor)
