"""The units of work of a merge: elements of tensors, and chunks of output files."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from rammerge.checkpoints.layout import Shard


@dataclass(frozen=True, order=True)
class Unit:
    """Elements [start, stop) of one tensor."""

    tensor: str
    start: int
    stop: int

    @property
    def units(self) -> tuple["Unit", ...]:
        """The unit itself, so that it can be a job."""
        return (self,)


@dataclass(frozen=True)
class Piece:
    """A unit whose result starts at byte `offset` of a chunk."""

    unit: Unit
    offset: int


@dataclass(frozen=True)
class Chunk:
    """Bytes [start, stop) of a shard's file, which are parts of its header and of tensors."""

    shard: Shard
    start: int
    stop: int
    pieces: tuple[Piece, ...]

    @property
    def header(self) -> bytes:
        """The part of the header that is in the chunk, at its start."""
        return self.shard.header[self.start : self.stop]

    @property
    def units(self) -> tuple[Unit, ...]:
        """The units whose results fill the chunk."""
        return tuple(piece.unit for piece in self.pieces)


def cut(shard: Shard, nbytes: int) -> Iterator[Chunk]:
    """Cut a shard's file into chunks of `nbytes`, which is a multiple of all element sizes; the last may be shorter."""
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
