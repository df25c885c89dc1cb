"""Decoding blocks with numpy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rammerge.checkpoints.patched.blocks import BLOCK, LONG, Bytes, Mode, Stored, decompress
from rammerge.checkpoints.patched.steps import moved, unsigned
from rammerge.numerics.dtypes import DType


@dataclass(frozen=True, slots=True)
class Run:
    """Consecutive blocks of a tensor, as a patch stores them.

    Attributes:
        rows: their rows of the tensor's table.
        frames: their frames, one after the other.
        elements: how many elements the tensor has from the first block's start.
        dtype: of the elements.
        has_base: whether the base has these elements, or the blocks must hold them all.
    """

    rows: NDArray[Any]
    frames: Bytes
    elements: int
    dtype: DType
    has_base: bool


def decode_run(run: Run, skipped: int, memory: memoryview) -> None:
    """Turn the base's elements in `memory`, which begin `skipped` elements into the first block, into the agent's.

    Raises:
        ValueError: this is not what `encode` made with this base.
    """
    done = at = 0
    for number, (mode, planes, content, first, second) in enumerate(run.rows.tolist()):
        elements = min(BLOCK, run.elements - number * BLOCK)
        stored = Stored(
            Mode(mode), planes, content, run.frames[at : at + first].data, run.frames[at + first :][:second].data
        )
        whole, begin = np.zeros(elements * run.dtype.itemsize, np.uint8), skipped * run.dtype.itemsize
        part = np.frombuffer(memory[done : done + len(whole) - begin], np.uint8)
        whole[begin : begin + len(part)] = part
        part[:] = decode(stored, whole if run.has_base else None, elements, run.dtype)[begin : begin + len(part)]
        done, at, skipped = done + len(part), at + first + second, 0


def decode(stored: Stored, base: Bytes | None, elements: int, dtype: DType) -> Bytes:
    """Return the bytes of a block of `elements` elements. No more memory is taken than they need.

    Raises:
        ValueError: this is not what `encode` made with this base.
    """
    size = elements * dtype.itemsize
    if stored.mode == Mode.BYTES:
        found = decompress(stored.second, size)
        return found if stored.planes == 1 else _from_planes(found.reshape(stored.planes, -1), dtype)
    if base is None:
        raise ValueError("a block refers to elements that the base does not have")
    if stored.mode == Mode.SAME:
        return base
    old = base.view(unsigned(dtype))
    if stored.mode == Mode.STEPS:
        steps = _from_halves(decompress(stored.second, -(-elements // 2)), elements, dtype)
        return moved(old, steps, dtype).view(np.uint8)
    changed = _positions(stored, elements)
    values = old.copy()
    values[changed] = moved(old.take(changed), _zigzag(stored, len(changed), dtype), dtype)
    return values.view(np.uint8)


def _positions(stored: Stored, elements: int) -> NDArray[np.int64]:
    """Return which elements of a block changed."""
    content = decompress(stored.first, stored.content)
    if stored.mode == Mode.BITMAP:
        if stored.content != -(-elements // 8):
            raise ValueError("a bitmap is not as long as its block")
        return np.flatnonzero(np.unpackbits(content, count=elements, bitorder="little").view(bool))
    ends = np.cumsum(content, dtype=np.int64)
    is_change = content != LONG
    changes: NDArray[np.int64] = ends + np.cumsum(is_change) - 1
    return changes if is_change.all() else changes[is_change]


def _zigzag(stored: Stored, count: int, dtype: DType) -> NDArray[Any]:
    """Return the steps of the elements that changed."""
    kind = unsigned(dtype)
    if stored.planes == 0:
        steps = _from_halves(decompress(stored.second, -(-count // 2)), count, dtype)
        steps += kind.type(1)
        return steps
    planes = decompress(stored.second, count * stored.planes).reshape(stored.planes, count)
    return planes[0].astype(kind) if stored.planes == 1 else _from_planes(planes, dtype).view(kind)


def _from_halves(halves: Bytes, count: int, dtype: DType) -> NDArray[Any]:
    """Return the numbers of half a byte each, of which the first is in the lower half."""
    steps: NDArray[Any] = np.empty(2 * len(halves), unsigned(dtype))
    steps[0::2], steps[1::2] = halves & 15, halves >> 4
    return steps[:count]


def _from_planes(planes: Bytes, dtype: DType) -> Bytes:
    """Return elements from their bytes, the lowest of each first; of the highest some may be missing: they are zero."""
    values = np.zeros((planes.shape[1], dtype.itemsize), np.uint8)
    values[:, : len(planes)] = planes.T
    return values.reshape(-1)
