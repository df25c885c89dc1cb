"""Reading base and members: tile by tile or whole, each thread into memory of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from rammerge.checkpoints.checkpoint import Checkpoint
from rammerge.checkpoints.headers import TensorInfo
from rammerge.engine.buffers import Buffer, address, as_tensor, buffers, pages
from rammerge.engine.compiling.loop import Source
from rammerge.engine.input import Files
from rammerge.engine.memory import EAGER_ELEMENTS, MemoryPlan, largest_block_bytes
from rammerge.engine.output.chunks import Unit
from rammerge.engine.sums import GRAIN
from rammerge.system.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor


class Reader:
    """Reads checkpoints that have the same tensors. What a thread has read is valid until it reads the next."""

    def __init__(
        self,
        checkpoints: Sequence[Checkpoint],
        files: Files,
        plan: Callable[[], MemoryPlan],
        device: str,
        lane: Callable[[], AbstractContextManager[None]],
    ) -> None:
        """Prepare to read.

        Args:
            checkpoints: the base and the members.
            files: their open files, which somebody else closes.
            plan: returns the sizes of what is read at a time, which are not known before the first read.
            device: where the elements are wanted.
            lane: the context in which a thread asks a GPU for something.
        """
        self._checkpoints, self._files, self._plan = checkpoints, files, plan
        self._device, self._lane = device, lane
        self._own = threading.local()

    @property
    def tile(self) -> int:
        """How many elements are read and computed together: whole grains (rammerge.engine.sums)."""
        return self._plan().tile // GRAIN * GRAIN

    def tile_of_rows(self, row: int) -> int:
        """Return how many elements compiled code computes together if it needs whole rows of `row` elements."""
        return max(1, min(EAGER_ELEMENTS, self._plan().tile) // row) * row

    def inputs(self, tensor: str) -> list[TensorInfo]:
        """Return where each checkpoint stores a tensor."""
        return [checkpoint.tensors[tensor] for checkpoint in self._checkpoints]

    def will_read(self, unit: Unit) -> None:
        """Ask the kernel to fetch a unit in the background."""
        for info in self.inputs(unit.tensor):
            if info.held is None:
                self._files.will_read(info, unit.start, unit.stop)

    def tiles(self, unit: Unit, row: int = 1) -> Iterator[tuple[int, Tensor, list[Tensor]]]:
        """Read a unit tile by tile. Yield the index of the first element, the base's elements and each member's.

        The elements are in this process's memory. Tiles are whole rows of `row` elements.
        """
        infos, tile = self.inputs(unit.tensor), self._plan().tile // row * row if row > 1 else self.tile
        for start in range(unit.start, unit.stop, tile):
            stop = min(unit.stop, start + tile)
            read = [self._read(info, start, stop, buffer) for info, buffer in zip(infos, self._buffers(), strict=True)]
            yield start, read[0], read[1:]

    def whole(self, tensor: str) -> list[Tensor]:
        """Return a tensor of each checkpoint on the GPU, as vectors. They are the thread's last such."""
        if getattr(self._own, "tensor", None) != tensor:
            self._own.elements = None  # before others take its place
            self._own.elements, self._own.tensor = self._sent(tensor), tensor
        own: list[Tensor] = self._own.elements
        return own

    def sources(self, unit: Unit) -> list[Source]:
        """Return where compiled code finds a unit: in memory, or in files that it reads into the thread's buffers."""
        pairs = enumerate(zip(self.inputs(unit.tensor), self._buffers(), strict=True))
        return [self._source(unit, place, info, buffer) for place, (info, buffer) in pairs]

    def _read(self, info: TensorInfo, start: int, stop: int, buffer: Buffer) -> Tensor:
        if info.held is not None and self._device == "cpu":
            size = info.dtype.itemsize
            return as_tensor(info.held[start * size : stop * size], info.dtype)
        self._files.read(info, start, buffer.memory[: (stop - start) * info.dtype.itemsize])
        return buffer.view(stop - start, info.dtype)

    def _sent(self, tensor: str) -> list[Tensor]:
        infos = self.inputs(tensor)
        made = [torch.empty(info.numel, dtype=info.dtype.torch_dtype, device=self._device) for info in infos]
        for start, base, members in self.tiles(Unit(tensor, 0, infos[0].numel)):
            with self._lane():
                for target, read in zip(made, [base, *members], strict=True):
                    target[start : start + len(read)].copy_(read, non_blocking=True)
        return made

    def _source(self, unit: Unit, place: int, info: TensorInfo, buffer: Buffer) -> Source:
        size = info.dtype.itemsize
        if info.held is not None:
            return Source(info.dtype, address(info.held) + unit.start * size)
        if info.is_encoded:
            decoded = self._decoded(place)
            self._files.read(info, unit.start, decoded.memory[: (unit.stop - unit.start) * size])
            return Source(info.dtype, decoded.address)
        offset = info.offset + unit.start * size
        return Source(info.dtype, buffer.address, info.file, self._files.descriptor(info.file), offset)

    def _decoded(self, place: int) -> Buffer:
        """Return the calling thread's memory for the decoded elements of an input."""
        if not hasattr(self._own, "decoded"):
            self._own.decoded = {}
        own: dict[int, Buffer] = self._own.decoded
        if place not in own:
            own[place] = Buffer(pages(largest_block_bytes(self._checkpoints[place], self._plan().longest)))
        return own[place]

    def _buffers(self) -> list[Buffer]:
        """Return the calling thread's memory for a tile of each input."""
        if not hasattr(self._own, "buffers"):
            sizes = [largest_block_bytes(checkpoint, self._plan().tile) for checkpoint in self._checkpoints]
            self._own.buffers = buffers(sizes, pinned=self._device != "cpu")
        own: list[Buffer] = self._own.buffers
        return own
