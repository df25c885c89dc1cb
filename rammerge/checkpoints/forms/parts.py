"""Assembling tensors from the parts that the ranks of a distributed trainer saved."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod

from rammerge.system.lazy import torch


@dataclass(frozen=True)
class Chunk:
    """A box of a tensor: its offsets, its extent, and a function that reads its elements."""

    offsets: tuple[int, ...]
    sizes: tuple[int, ...]
    read: Callable[[], torch.Tensor]


def assemble(dtype: torch.dtype, shape: tuple[int, ...], chunks: Sequence[Chunk]) -> torch.Tensor:
    """Return the tensor of `dtype` and `shape` made from `chunks`, with one chunk at a time in memory beside it."""
    if len(chunks) == 1:
        return chunks[0].read()
    whole = torch.empty(shape, dtype=dtype)
    for chunk in chunks:
        box = tuple(slice(begin, begin + size) for begin, size in zip(chunk.offsets, chunk.sizes, strict=True))
        whole[box] = chunk.read()
    return whole


def fault(shape: tuple[int, ...], chunks: Sequence[Chunk]) -> str | None:
    """Return None if `chunks` fill a tensor of `shape` exactly, else the reason why they do not."""
    for chunk in chunks:
        if not len(chunk.offsets) == len(chunk.sizes) == len(shape):
            return "a part has a different number of dimensions"
        ends = (begin + size for begin, size in zip(chunk.offsets, chunk.sizes, strict=True))
        if min(chunk.offsets, default=0) < 0 or any(end > extent for end, extent in zip(ends, shape, strict=True)):
            return "a part is outside of it"
    filled = sorted((chunk for chunk in chunks if prod(chunk.sizes)), key=lambda chunk: chunk.offsets)
    if sum(prod(chunk.sizes) for chunk in filled) != prod(shape):
        return "its parts do not fill it"
    if any(_overlaps_a_later_one(filled, number) for number in range(len(filled))):
        return "two of its parts overlap"
    return None


def _overlaps_a_later_one(chunks: Sequence[Chunk], number: int) -> bool:
    one = chunks[number]
    for other in chunks[number + 1 :]:
        if one.offsets and other.offsets[0] >= one.offsets[0] + one.sizes[0]:
            return False  # sorted: all later chunks start further on
        boxes = zip(one.offsets, one.sizes, other.offsets, other.sizes, strict=True)
        if all(a < b + b_size and b < a + a_size for a, a_size, b, b_size in boxes):
            return True
    return False
