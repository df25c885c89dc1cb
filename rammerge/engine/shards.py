"""Writing one output shard: preallocated, hashed while it grows, durable and renamed into place when whole."""

import hashlib
import heapq
import json
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rammerge.atomic import write_json
from rammerge.checkpoints.digest import sha256_file
from rammerge.engine.layout import Shard
from rammerge.engine.stream import read_into, start_flush, write_from

_CHUNK = 1 << 22
# Starting the disk early, without waiting for it, keeps the last flush short.
_FLUSH_EVERY = 1 << 26


@dataclass(frozen=True)
class ShardRecord:
    """A finished shard: its file, its SHA-256, and the counts of its blocks summed (see engine.merging)."""

    file: str
    sha256: str
    counts: tuple[int, ...]


class ShardWriter:
    """Writes a shard from any threads in any order; a thread of its own hashes what is contiguous from the start.

    `directory` is a staging directory: the shard goes to its `model`, the record of it to its `records`. A full disk
    is an OSError here, and a sentence where the staging directory is held (rammerge.publish).
    """

    def __init__(self, directory: Path, shard: Shard) -> None:
        self.shard = shard
        self._directory = directory
        self._part = _part_path(directory, shard)
        self._descriptor = os.open(self._part, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
        try:
            if shard.size:
                os.posix_fallocate(self._descriptor, 0, shard.size)
        except OSError:
            os.close(self._descriptor)
            raise
        self._changed = threading.Condition()
        self._frontier = 0
        self._islands: list[tuple[int, int]] = []
        self._abandoned = False
        self._failure: OSError | None = None
        self._sha256 = hashlib.sha256()
        self._hasher = threading.Thread(target=self._hash, name=f"hash {shard.file}", daemon=True)
        self._hasher.start()
        self.write(0, memoryview(shard.header))

    def write(self, offset: int, view: memoryview) -> None:
        """Write `view` at `offset`; every byte of the shard is to be written once."""
        write_from(self._descriptor, view, offset)
        with self._changed:
            heapq.heappush(self._islands, (offset, offset + len(view)))
            while self._islands and self._islands[0][0] <= self._frontier:
                self._frontier = max(self._frontier, heapq.heappop(self._islands)[1])
            self._changed.notify()

    @property
    def complete(self) -> bool:
        """Whether every byte has been written."""
        return self._frontier == self.shard.size

    def finish(self, counts: Sequence[int]) -> ShardRecord:
        """Make the shard durable under its own name and leave a record beside it, from which a later run resumes."""
        self._hasher.join()
        try:
            if self._failure is not None:
                raise self._failure
            os.fsync(self._descriptor)
        finally:
            os.close(self._descriptor)
        record = ShardRecord(self.shard.file, self._sha256.hexdigest(), tuple(int(count) for count in counts))
        self._part.replace(_final_path(self._directory, self.shard))
        write_json(_record_path(self._directory, self.shard), {"sha256": record.sha256, "counts": list(record.counts)})
        return record

    def abandon(self) -> None:
        """Stop after a failure elsewhere; the partial file stays for the next run to overwrite."""
        with self._changed:
            self._abandoned = True
            self._changed.notify()
        self._hasher.join()
        os.close(self._descriptor)

    def _hash(self) -> None:
        buffer = bytearray(_CHUNK)
        position = flushed = 0
        while position < self.shard.size:
            with self._changed:
                while self._frontier == position and not self._abandoned:
                    self._changed.wait()
                if self._abandoned:
                    return
                view = memoryview(buffer)[: min(self._frontier - position, _CHUNK)]
            try:
                read_into(self._descriptor, view, position, self._part)
                if position - flushed >= _FLUSH_EVERY:
                    start_flush(self._descriptor, flushed, position - flushed)
                    flushed = position
            except OSError as error:
                self._failure = error
                return
            self._sha256.update(view)
            position += len(view)


def finished(directory: Path, shard: Shard) -> ShardRecord | None:
    """Return the record of a shard that an earlier run finished, if the file still is what was written."""
    try:
        content: Any = json.loads(_record_path(directory, shard).read_text(encoding="utf-8"))
        record = ShardRecord(shard.file, str(content["sha256"]), tuple(int(count) for count in content["counts"]))
        path = _final_path(directory, shard)
        if path.stat().st_size == shard.size and sha256_file(path) == record.sha256:
            return record
    except (OSError, ValueError, KeyError, TypeError):
        pass  # no whole record: the shard is written anew
    return None


def _final_path(directory: Path, shard: Shard) -> Path:
    return directory / "model" / shard.file


def _part_path(directory: Path, shard: Shard) -> Path:
    return directory / "model" / f"{shard.file}.part"


def _record_path(directory: Path, shard: Shard) -> Path:
    return directory / "records" / f"{shard.file}.json"
