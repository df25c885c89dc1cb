"""Tensors whose elements are computed from the base's and a patch's blocks when they are read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rammerge.checkpoints.headers import Read, TensorInfo
from rammerge.checkpoints.patched.blocks import BLOCK
from rammerge.checkpoints.patched.compiled import decoder
from rammerge.checkpoints.patched.container import Patch, refuse
from rammerge.checkpoints.patched.decoding import Run, decode_run

# Blocks that are read and decoded together. They are as many as a merge asks for at once, because between two reads a
# thread waits for the interpreter's lock, and on a busy machine that takes long.
_RUN_BLOCKS = 32


@dataclass(frozen=True, slots=True)
class Blocks:
    """The blocks of a tensor.

    Attributes:
        file: the patch.
        elements: how many elements they hold together.
        table: a row for each (rammerge.checkpoints.patched.container).
        offsets: int64, where each one's frames are in the file, and where the last one's end.
        reference: the base's tensor that they are relative to.
    """

    file: Path
    elements: int
    table: NDArray[Any]
    offsets: NDArray[np.int64]
    reference: TensorInfo | None


@dataclass(frozen=True, slots=True)
class PatchedTensor(TensorInfo):
    """A tensor of an agent in a patch; or the first rows of one.

    Attributes:
        blocks: what it is computed from.
    """

    blocks: Blocks

    @property
    def files(self) -> tuple[Path, ...]:
        """The patch, and the base's file."""
        reference = self.blocks.reference
        return (self.file,) if reference is None else (self.file, *reference.files)

    @property
    def is_encoded(self) -> bool:
        """True: `fill` computes the bytes."""
        return True

    def fill(self, first: int, memory: memoryview, read: Read) -> None:
        """Fill `memory` with the tensor's bytes from byte `first`, by way of `read`.

        Raises:
            InputError: the patch is damaged.
        """
        size, done = _RUN_BLOCKS * BLOCK * self.dtype.itemsize, 0
        while done < len(memory):
            part = memory[done : done + size - (first + done) % size]
            self._fill_run((first + done) // self.dtype.itemsize, part, read)
            done += len(part)

    def extent(self, first: int, stop: int) -> tuple[int, int]:
        """Return offset and length of the part of the patch that bytes [first, stop) are read from."""
        size, last = BLOCK * self.dtype.itemsize, len(self.blocks.table) - 1
        return self._frames(min(first // size, last), min((stop - 1) // size, last) + 1)

    def _frames(self, first: int, last: int) -> tuple[int, int]:
        """Return offset and length of the frames of blocks [first, last)."""
        begin, end = self.blocks.offsets[[first, last]].tolist()
        return begin, end - begin

    def _fill_run(self, start: int, memory: memoryview, read: Read) -> None:
        """Fill `memory` from element `start`, with elements of a few blocks."""
        blocks, stop = self.blocks, start + len(memory) // self.dtype.itemsize
        first, last = start // BLOCK, -(-stop // BLOCK)
        has_base = read_reference(blocks.reference, start, memory, read)
        offset, length = self._frames(first, last)
        frames = np.empty(length, np.uint8)
        read(self.file, offset, frames.data)
        run = Run(blocks.table[first:last], frames, blocks.elements - first * BLOCK, self.dtype, has_base)
        try:
            (decoder(self.dtype) or decode_run)(run, start - first * BLOCK, memory)
        except (ValueError, IndexError) as error:
            raise refuse(self.file, f"has damaged blocks of {self.name!r} ({error})") from error


def patched_tensor(patch: Patch, tensor: TensorInfo, reference: TensorInfo | None) -> PatchedTensor:
    """Return an original tensor, which `reference` of the base helps to compute.

    Raises:
        InputError: the patch does not store it, or is damaged.
    """
    if reference is not None and reference.dtype != tensor.dtype:
        reference = None
    table, offsets = patch.table(tensor)
    stored = patch.record(tensor.name)
    blocks = Blocks(patch.file, tensor.numel, table, offsets, reference)
    return PatchedTensor(tensor.name, tensor.dtype, tensor.shape, patch.file, stored.offset, tensor.nbytes, blocks)


def read_reference(reference: TensorInfo | None, start: int, memory: memoryview, read: Read) -> bool:
    """Fill `memory` with the base's elements from element `start`; those that it does not have are zero bytes.

    Return whether there is a reference; else nothing is done.
    """
    if reference is None:
        return False
    begin = start * reference.dtype.itemsize
    present = max(0, min(len(memory), reference.nbytes - begin))
    if present:
        reference.fill(begin, memory[:present], read)
    memory[present:] = bytes(len(memory) - present)
    return True
