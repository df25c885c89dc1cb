"""Writing one output shard: preallocated, hashed while it grows, durable and renamed into place when whole."""

import hashlib
import heapq
import json
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rammerge.atomic import write_json
from rammerge.checkpoints.digest import sha256_file
from rammerge.engine.layout import Shard
from rammerge.engine.stream import start_flush, write_from

# Written parts that may wait to be hashed, besides one for each thread.
AHEAD = 4
# Starting the disk early, without waiting for it, keeps the last flush short.
_FLUSH_EVERY = 1 << 26


@dataclass(frozen=True)
class ShardRecord:
    """A finished shard: its file, its SHA-256, and the counts of its blocks summed (see engine.merging)."""

    file: str
    sha256: str
    counts: tuple[int, ...]


class ShardWriter:
    """Writes a shard from any threads, which hash it between them in the order of its bytes.

    Whoever writes the next bytes to be hashed does so at once, while they are still in its processor's cache, and goes
    on with what others wrote behind them meanwhile; the others do not wait for it, unless more than `AHEAD` parts are
    held in memory. `directory` is a staging directory: the shard goes to its `model`, the record of it to its
    `records`. A full disk is an OSError here, and a sentence where the staging directory is held (rammerge.publish).
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
        self._writing = threading.Lock()
        self._changed = threading.Condition()
        self._unhashed: list[_Written] = []
        self._hashed = self._flushed = 0
        self._hashing = self._stopped = False
        self._sha256 = hashlib.sha256()
        self.write(0, memoryview(shard.header))

    def write(self, offset: int, content: memoryview) -> None:
        """Write `content`, which is not to change afterwards, at `offset`; every byte of the shard just once.

        No wait in here is forever if parts are begun in their order, and either all that are begun are written too or
        `stop` is called.
        """
        with self._writing:  # the kernel lets one writer at a time into a file, and the others wait busily
            write_from(self._descriptor, content, offset)
        with self._changed:
            heapq.heappush(self._unhashed, _Written(offset, content))
            self._changed.wait_for(lambda: self._stopped or self._can_hash() or len(self._unhashed) <= AHEAD)
            if not self._can_hash():
                return
            self._hashing = True
        self._hash()

    def finish(self, counts: Sequence[int]) -> ShardRecord:
        """Make the shard durable under its own name and leave a record beside it, from which a later run resumes."""
        with self._changed:
            self._changed.wait_for(lambda: self._hashed == self.shard.size)
        try:
            os.fsync(self._descriptor)
        finally:
            os.close(self._descriptor)
        record = ShardRecord(self.shard.file, self._sha256.hexdigest(), tuple(counts))
        self._part.replace(_final_path(self._directory, self.shard))
        write_json(_record_path(self._directory, self.shard), {"sha256": record.sha256, "counts": list(record.counts)})
        return record

    def stop(self) -> None:
        """Let no thread wait here any longer, after a failure elsewhere."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def abandon(self) -> None:
        """End after a failure elsewhere; the partial file stays for the next run to overwrite."""
        os.close(self._descriptor)

    def _can_hash(self) -> bool:
        return not self._hashing and bool(self._unhashed) and self._unhashed[0].offset == self._hashed

    def _hash(self) -> None:
        while True:
            with self._changed:
                written = heapq.heappop(self._unhashed)
            self._sha256.update(written.content)
            end = written.offset + len(written.content)
            if end - self._flushed >= _FLUSH_EVERY:
                start_flush(self._descriptor, self._flushed, end - self._flushed)
                self._flushed = end
            with self._changed:
                self._hashed, self._hashing = end, False
                self._changed.notify_all()
                if not self._can_hash():
                    return
                self._hashing = True


@dataclass(frozen=True, order=True)
class _Written:
    """A part of the file that is yet to be hashed."""

    offset: int
    content: memoryview = field(compare=False)


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
