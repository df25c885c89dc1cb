"""Writing the container of a patch in one pass, in the order of its tensors."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from rammerge.checkpoints.patched.blocks import Stored
from rammerge.checkpoints.patched.container import CONTENTS, FORMAT, ROW, SHA256, Contents

# Larger than any offset in a file.
_MOST = 2**63 - 1


class PatchWriter:
    """Writes a container. The room for its header is reserved before the sizes in it are known."""

    def __init__(self, path: Path, names: Sequence[str], contents: Contents) -> None:
        """Begin the file `path` with the tensors `names`, to be added in this order."""
        self._names, self._contents = names, contents
        self._ends: list[int] = []
        self._sha256 = hashlib.sha256()
        self._position = 0
        self._file = path.open("wb")
        longest = len(self._header([(-_MOST, _MOST)] * len(names), "0" * 64))
        self._reserved = -(-longest // 8) * 8
        self._file.write(bytes(8 + self._reserved))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        with self._file:
            if error is None:
                header = self._header(pairwise([0, *self._ends]), self._sha256.hexdigest())
                self._file.seek(0)
                self._file.write(self._reserved.to_bytes(8, "little") + header.ljust(self._reserved))
                self._file.flush()
                os.fsync(self._file.fileno())

    def add_bytes(self, content: bytes) -> None:
        """Add the next tensor."""
        self._write(content)
        self._ends.append(self._position)

    def add_blocks(self, blocks: Iterable[Stored]) -> None:
        """Add the next tensor: its frames, then its table."""
        rows = []
        for block in blocks:
            self._write(block.first)
            self._write(block.second)
            rows.append((block.mode, block.planes, block.content, len(block.first), len(block.second)))
        self.add_bytes(np.array(rows, ROW).tobytes())

    def _write(self, content: bytes | memoryview) -> None:
        self._file.write(content)
        self._sha256.update(content)
        self._position += len(content)

    def _header(self, spans: Iterable[tuple[int, int]], sha256: str) -> bytes:
        """Return the JSON of the header, with the first and last offset of each tensor."""
        metadata = {"format": FORMAT, CONTENTS: self._contents.to_text(), SHA256: sha256}
        entries: dict[str, object] = {"__metadata__": metadata}
        for name, (begin, end) in zip(self._names, spans, strict=True):
            entries[name] = {"dtype": "U8", "shape": [end - begin], "data_offsets": [begin, end]}
        return json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
