"""The work of a merge: elements of tensors, and the pieces of output files that they go to."""

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
