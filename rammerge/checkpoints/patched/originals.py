"""The weight files that a patch stands for, byte for byte, one piece after the other."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from rammerge.checkpoints.file_digest import FileDigest
from rammerge.checkpoints.headers import Read
from rammerge.checkpoints.patched.blocks import BLOCK
from rammerge.checkpoints.patched.container import refuse
from rammerge.checkpoints.patched.tensors import PatchedTensor
from rammerge.system.reading import opened
from rammerge.system.threads import in_order

# A thread decodes this many blocks at a time.
SPAN_BLOCKS = 16


@dataclass(frozen=True)
class OriginalFile:
    """A weight file that a patch stands for.

    Attributes:
        name: its name.
        patch: the container that it is computed from.
        claimed: its size and SHA-256, as the patch has them.
        header: the JSON of its header.
        tensors: its tensors, in the order of their data.
    """

    name: str
    patch: Path
    claimed: FileDigest
    header: bytes
    tensors: tuple[PatchedTensor, ...]

    def pieces(self) -> Iterator[bytes | memoryview]:
        """Yield the bytes of the file in order, computed on several threads.

        Raises:
            InputError: the patch is damaged.
        """
        yield len(self.header).to_bytes(8, "little")
        yield self.header
        with opened(self.sources) as read:
            yield from in_order(self._spans(), partial(_decode, read), os.cpu_count() or 1)

    @property
    def names(self) -> set[str]:
        """The names of its tensors."""
        return {tensor.name for tensor in self.tensors}

    @property
    def sources(self) -> list[Path]:
        """The files from which it is computed."""
        return list(dict.fromkeys([self.patch, *(file for tensor in self.tensors for file in tensor.files)]))

    def check(self, sha256: str) -> None:
        """Check the SHA-256 of what `pieces` yielded.

        Raises:
            InputError: it is not what the patch says.
        """
        if sha256 != self.claimed.sha256:
            raise refuse(self.patch, f"gives a different {self.name} from the one that was packed")

    def sha256(self) -> str:
        """Return the SHA-256 of the file, computed anew."""
        sha256 = hashlib.sha256()
        for piece in self.pieces():
            sha256.update(piece)
        return sha256.hexdigest()

    def _spans(self) -> Iterator[tuple[PatchedTensor, int, int]]:
        for tensor in self.tensors:
            size = SPAN_BLOCKS * BLOCK * tensor.dtype.itemsize
            for first in range(0, tensor.nbytes, size):
                yield tensor, first, min(size, tensor.nbytes - first)


def _decode(read: Read, span: tuple[PatchedTensor, int, int]) -> memoryview:
    tensor, first, nbytes = span
    content = np.empty(nbytes, np.uint8).data
    tensor.fill(first, content, read)
    return content
