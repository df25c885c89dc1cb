"""Assembling tensors from the parts that the ranks of a distributed trainer saved."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod

from rammerge.system.lazy import torch


@dataclass(frozen=True)
class Part:
    """A box of a tensor: its offsets, its extent, and a function that reads its elements."""

    offsets: tuple[int, ...]
    sizes: tuple[int, ...]
    read: Callable[[], torch.Tensor]


def assemble(dtype: torch.dtype, shape: tuple[int, ...], parts: Sequence[Part]) -> torch.Tensor:
    """Return the tensor of `dtype` and `shape` made from `parts`, with one part at a time in memory beside it."""
    if len(parts) == 1:
        return parts[0].read()
    whole = torch.empty(shape, dtype=dtype)
    for part in parts:
        box = tuple(slice(begin, begin + size) for begin, size in zip(part.offsets, part.sizes, strict=True))
        whole[box] = part.read()
    return whole


def fault(shape: tuple[int, ...], parts: Sequence[Part]) -> str | None:
    """Return None if `parts` fill a tensor of `shape` exactly, else the reason why they do not."""
    for part in parts:
        if not len(part.offsets) == len(part.sizes) == len(shape):
            return "a part has a different number of dimensions"
        ends = (begin + size for begin, size in zip(part.offsets, part.sizes, strict=True))
        if min(part.offsets, default=0) < 0 or any(end > extent for end, extent in zip(ends, shape, strict=True)):
            return "a part lies outside the tensor"
    filled = sorted((part for part in parts if prod(part.sizes)), key=lambda part: part.offsets)
    if sum(prod(part.sizes) for part in filled) != prod(shape):
        return "its parts do not fill it"
    if any(_overlaps_a_later_one(filled, number) for number in range(len(filled))):
        return "two of its parts overlap"
    return None


def _overlaps_a_later_one(parts: Sequence[Part], number: int) -> bool:
    one = parts[number]
    for other in parts[number + 1 :]:
        if one.offsets and other.offsets[0] >= one.offsets[0] + one.sizes[0]:
            return False  # sorted: all later chunks start further on
        boxes = zip(one.offsets, one.sizes, other.offsets, other.sizes, strict=True)
        if all(a < b + b_size and b < a + a_size for a, a_size, b, b_size in boxes):
            return True
    return False
