"""Tensors whose elements are computed from the base's and a patch's blocks when they are read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rammerge.checkpoints.headers import Read, TensorInfo
from rammerge.checkpoints.patched.blocks import BLOCK, Bytes, Mode, Stored, decode
from rammerge.checkpoints.patched.container import Patch, refuse


@dataclass(frozen=True, slots=True)
class Blocks:
    """The blocks of a tensor.

    Attributes:
        file: the patch.
        elements: how many elements they hold together.
        table: a row for each (rammerge.checkpoints.patched.container).
        offsets: int64, where each one's frames are in the file.
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
        size, done = BLOCK * self.dtype.itemsize, 0
        while done < len(memory):
            number, skipped = divmod(first + done, size)
            part = self._block(number, read)[skipped : skipped + len(memory) - done]
            memory[done : done + len(part)] = part.data
            done += len(part)

    def extent(self, first: int, stop: int) -> tuple[int, int]:
        """Return offset and length of the part of the patch that bytes [first, stop) are read from."""
        size, last = BLOCK * self.dtype.itemsize, len(self.blocks.table) - 1
        begin = int(self.blocks.offsets[min(first // size, last)])
        row = self.blocks.table[min((stop - 1) // size, last)]
        end = int(self.blocks.offsets[min((stop - 1) // size, last)]) + int(row["first"]) + int(row["second"])
        return begin, end - begin

    def _block(self, number: int, read: Read) -> Bytes:
        blocks = self.blocks
        mode, planes, content, first, second = blocks.table[number].tolist()
        elements = min(BLOCK, blocks.elements - number * BLOCK)
        frames = memoryview(bytearray(first + second))
        read(self.file, int(blocks.offsets[number]), frames)
        stored = Stored(Mode(mode), planes, content, frames[:first], frames[first:])
        base = None if mode == Mode.BYTES else read_reference(blocks.reference, number * BLOCK, elements, read)
        try:
            return decode(stored, base, elements, self.dtype)
        except (ValueError, IndexError) as error:
            raise refuse(self.file, f"has a damaged block of {self.name!r} ({error})") from error


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


def read_reference(reference: TensorInfo | None, start: int, elements: int, read: Read) -> Bytes | None:
    """Return the base's elements for a block; those that it does not have are zero bytes. None without a reference."""
    if reference is None:
        return None
    size = reference.dtype.itemsize
    content = np.zeros(elements * size, np.uint8)
    present = max(0, min(elements, reference.numel - start)) * size
    if present:
        reference.fill(start * size, content.data[:present], read)
    return content
