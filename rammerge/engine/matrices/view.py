"""A matrix with its short side first, read and written in blocks of its long side."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rammerge.engine.buffers import as_tensor, pages
from rammerge.numerics.dtypes import DTYPES, DType
from rammerge.system.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

# A block has about this many elements. Sums go block by block, so this is a part of the result's last bits.
BLOCK_ELEMENTS = 1 << 20
_LEAST_WIDTH = 64

# Fills memory with the elements from an index on, or writes them there.
Transfer = Callable[[int, memoryview], None]


@dataclass(frozen=True)
class MatrixView:
    """A tensor [rows, columns] as a matrix [short, long]: transposed, if it has more rows than columns.

    With `by_inputs` it is transposed anyway, so that a block is some rows, and the short side are the columns even if
    there are more of them.
    """

    name: str
    rows: int
    columns: int
    by_inputs: bool = False

    @property
    def transposed(self) -> bool:
        """Whether the short side is the columns."""
        return self.by_inputs or self.rows > self.columns

    @property
    def short(self) -> int:
        """Length of the short side."""
        return self.columns if self.transposed else self.rows

    @property
    def long(self) -> int:
        """Length of the long side."""
        return self.rows if self.transposed else self.columns

    @property
    def width(self) -> int:
        """Length of a block, which depends on nothing but the shape."""
        return min(self.long, max(_LEAST_WIDTH, BLOCK_ELEMENTS // self.short))

    def blocks(self) -> Iterator[slice]:
        """Cut the long side."""
        for start in range(0, self.long, self.width):
            yield slice(start, min(self.long, start + self.width))

    def read(self, dtype: DType, block: slice, transfer: Transfer) -> Tensor:
        """Return the elements of a block, [short, length of the block], in the dtype in which they are stored."""
        memory = pages(self.short * (block.stop - block.start) * dtype.itemsize)
        self._transfer(dtype, block, memory, transfer)
        elements = as_tensor(memory, dtype)
        return elements.view(-1, self.short).T if self.transposed else elements.view(self.short, -1)

    def part(self, elements: Tensor, block: slice) -> Tensor:
        """Return the elements of a block, [short, length of the block], of a whole tensor."""
        matrix = elements.view(self.rows, self.columns)
        return matrix[block].T if self.transposed else matrix[:, block]

    def write(self, block: slice, values: Tensor, transfer: Transfer) -> None:
        """Write the elements of a block, float32 [short, length of the block]."""
        stored = (values.T if self.transposed else values).contiguous()
        self._transfer(DTYPES["float32"], block, stored.view(-1).view(torch.uint8).numpy().data, transfer)

    def _transfer(self, dtype: DType, block: slice, memory: memoryview, transfer: Transfer) -> None:
        if self.transposed:
            transfer(block.start * self.columns, memory)
            return
        row = (block.stop - block.start) * dtype.itemsize
        for index in range(self.rows):
            transfer(index * self.columns + block.start, memory[index * row : (index + 1) * row])
