"""Memory in which elements that have to be decoded wait for compiled code, which reads all inputs as files."""

import mmap
import os

from rammerge.checkpoints.headers import TensorInfo
from rammerge.engine.input import Files
from rammerge.engine.output.chunks import Unit


class Decoded:
    """A file in memory, for one thread and one input."""

    def __init__(self, nbytes: int) -> None:
        """Make a file of `nbytes`."""
        self._descriptor = os.memfd_create("decoded")
        os.ftruncate(self._descriptor, nbytes)
        self._memory = memoryview(mmap.mmap(self._descriptor, nbytes))

    def hold(self, files: Files, info: TensorInfo, unit: Unit) -> int:
        """Decode the elements of a unit to the start of the file, and return its descriptor."""
        files.read(info, unit.start, self._memory[: (unit.stop - unit.start) * info.dtype.itemsize])
        return self._descriptor

    def close(self) -> None:
        """Free the memory, once nothing reads it any more."""
        self._memory.release()
        os.close(self._descriptor)
