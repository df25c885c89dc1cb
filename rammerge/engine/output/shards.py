"""Writing output shards: preallocated, hashed while they are written, flushed and renamed when complete."""

import errno
import fcntl
import hashlib
import heapq
import json
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rammerge.checkpoints.digest import sha256_file
from rammerge.checkpoints.layout import Shard
from rammerge.engine.buffers import pages
from rammerge.engine.output.chunks import Chunk
from rammerge.engine.output.disk import allocate, start_flush, write_from
from rammerge.system.atomic import write_json

# Chunks that may wait to be hashed or written, in addition to those that threads fill.
AHEAD = 6
# For direct writing, memory, offsets and lengths are multiples of this: the page size, or a disk's larger block.
ALIGNMENT = 4096
# With two, the disk already has the next chunk when it finishes one.
_WRITERS = 2


@dataclass(frozen=True)
class ShardRecord:
    """A finished shard: its file, its SHA-256, and the summed counts of its chunks (see passes.merging)."""

    file: str
    sha256: str
    counts: tuple[int, ...]


@dataclass(order=True)
class _Written:
    """A chunk that was handed over. Its memory is free again once it is hashed and written."""

    start: int
    stop: int
    memory: memoryview = field(compare=False)
    unfinished: int = field(default=2, compare=False)


def most_waiting(models: int) -> int:
    """Return how many chunks may wait if `models` models are written at the same time."""
    return AHEAD + models - 1 if models else 0


class Output:
    """What all shards of a run share: memory for chunks, the writing threads, and the first failure.

    Attributes:
        changed: guards the state here and in the shards' writers, and is notified of every change.
        failure: the error that kept a chunk from being written.
        allocated: bytes of memory for chunks.
    """

    def __init__(self, chunk_bytes: int, models: int = 1, make_memory: Callable[[int], memoryview] = pages) -> None:
        """Prepare for chunks of `models` models, of at most `chunk_bytes`, which is a multiple of `ALIGNMENT`.

        `make_memory` returns aligned memory of a given number of bytes.
        """
        self.changed = threading.Condition()
        self.failure: BaseException | None = None
        self.allocated = 0
        self._chunk_bytes, self._most, self._make_memory = chunk_bytes, most_waiting(models), make_memory
        self._free: list[memoryview] = []
        self._held = 0
        self._stopped = False
        self._writers = ThreadPoolExecutor(_WRITERS, thread_name_prefix="write")

    def memory(self) -> memoryview:
        """Return aligned memory with undefined content for a chunk. Hand it over to `ShardWriter.write`."""
        with self.changed:
            if self._free:
                return self._free.pop()
            self.allocated += self._chunk_bytes
            return self._make_memory(self._chunk_bytes)

    def stop(self) -> None:
        """Wake all threads that wait for room, because something else has failed."""
        with self.changed:
            self._stopped = True
            self.changed.notify_all()

    def close(self) -> None:
        """End the writing threads. Chunks that they have not started to write are lost."""
        self._writers.shutdown(cancel_futures=True)

    def wait_for_room(self) -> None:
        """Wait until one more chunk may be started. Call it after a chunk was handed over to all models that get it.

        Cannot deadlock as long as chunks are started in order, because whoever started the first chunk that is missing
        waits only after handing it over. Between two models it must not wait: what fills the room may be chunks of the
        second model that others handed over, and that nobody can hash before this one.

        Raises:
            OSError: a chunk could not be written.
        """
        with self.changed:
            self.changed.wait_for(self.has_room)
            self.raise_failure()

    def has_room(self) -> bool:
        """Return whether one more chunk may be started. The caller holds `changed`."""
        return self._stopped or self._held <= self._most

    def hold(self, writer: "ShardWriter", written: _Written) -> None:
        """Have a chunk written. The caller holds `changed`."""
        self._held += 1
        self._writers.submit(self._put, writer, written)

    def finish_part(self, written: _Written) -> None:
        """Record that a chunk was hashed or written. The caller holds `changed`."""
        written.unfinished -= 1
        if not written.unfinished:
            self._held -= 1
            self._free.append(written.memory)
        self.changed.notify_all()

    def raise_failure(self) -> None:
        """Raise the error that kept a chunk from being written, if there is one."""
        if self.failure is not None:
            raise self.failure

    def _put(self, writer: "ShardWriter", written: _Written) -> None:
        try:
            writer.put(written)
        except BaseException as error:  # any error must end the waiting for this chunk
            with self.changed:
                self.failure = self.failure or error
                self.stop()


class ShardWriter:
    """Writes a shard from chunks that any threads hand over. The same threads hash them, in the order of their bytes.

    The thread that hands over the next bytes to hash does so at once, while they are still in its processor's cache,
    and continues with the chunks that other threads handed over in the meantime. The others do not wait for it. Chunks
    go to the disk past the page cache where the file system supports that: copying them into the cache takes more
    processor time than computing them, and would push out the inputs.

    `directory` is a staging directory. The shard goes to its `model`, the record to its `records`. A full disk is an
    OSError here, and becomes one sentence where the staging directory is locked (rammerge.publishing.staging).
    """

    def __init__(self, directory: Path, shard: Shard, output: Output) -> None:
        self.shard = shard
        self._directory = directory
        self._output = output
        self._part = _part_path(directory, shard)
        self._descriptor = os.open(self._part, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
        try:
            allocate(self._descriptor, shard.size)
            self._direct = _can_write_directly(self._descriptor)
        except OSError:
            os.close(self._descriptor)
            raise
        self._buffered = threading.Lock()
        self._unhashed: list[_Written] = []
        self._hashed = self._on_disk = 0
        self._hashing = self._abandoned = False
        self._sha256 = hashlib.sha256()

    def write(self, chunk: Chunk, memory: memoryview) -> None:
        """Take over a chunk in memory from `Output.memory`. Each chunk of the shard is handed over once.

        Raises:
            OSError: an earlier chunk could not be written.
        """
        output = self._output
        written = _Written(chunk.start, chunk.stop, memory)
        with output.changed:
            heapq.heappush(self._unhashed, written)
            output.hold(self, written)
            while self._can_hash():
                self._hash_next()
            output.raise_failure()

    def abandon(self) -> None:
        """Wait for no chunk that is missing, because the shard will not be finished."""
        with self._output.changed:
            self._abandoned = True
            while self._can_hash():
                self._hash_next()

    def put(self, written: _Written) -> None:
        """Write a chunk. The output's threads call this."""
        # Direct writing uses whole blocks, so the file may be longer than the shard until the shard is finished.
        content = written.memory[: -(-(written.stop - written.start) // ALIGNMENT) * ALIGNMENT]
        done = self._direct and self._put_directly(content, written.start)
        if not done:
            with self._buffered:  # the kernel lets one thread at a time write to a file, and others would spin
                write_from(self._descriptor, content, written.start)
            # Starting to write early, without waiting, keeps the last flush short.
            start_flush(self._descriptor, written.start, len(content))
        with self._output.changed:
            self._on_disk += written.stop - written.start
            self._output.finish_part(written)

    def finish(self, counts: Sequence[int]) -> ShardRecord:
        """Flush the shard, give it its final name, and write the record from which a later run resumes.

        Raises:
            OSError: a chunk could not be written.
        """
        size, output = self.shard.size, self._output
        with output.changed:
            output.changed.wait_for(lambda: output.failure is not None or self._hashed == self._on_disk == size)
            output.raise_failure()
        os.ftruncate(self._descriptor, size)
        os.fsync(self._descriptor)
        record = ShardRecord(self.shard.file, self._sha256.hexdigest(), tuple(counts))
        self._part.replace(_final_path(self._directory, self.shard))
        write_json(_record_path(self._directory, self.shard), {"sha256": record.sha256, "counts": list(record.counts)})
        return record

    def close(self) -> None:
        """Close the file, finished or not, once nothing writes to it any more.

        A partial file stays, and the next run overwrites it.
        """
        os.close(self._descriptor)

    def _put_directly(self, content: memoryview, offset: int) -> bool:
        try:
            write_from(self._descriptor, content, offset)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.EFAULT):
                raise
            # Setting the flag was allowed, but writing is not, as on a disk with larger blocks or from the memory of a
            # GPU's driver. Clear the file's flag first: a writer that finds `_direct` cleared must not take the refusal
            # of a direct write for a failure.
            _set_direct(self._descriptor, on=False)
            self._direct = False
            return False
        return True

    def _can_hash(self) -> bool:
        is_next = bool(self._unhashed) and (self._abandoned or self._unhashed[0].start == self._hashed)
        return is_next and not self._hashing

    def _hash_next(self) -> None:
        """Hash the next chunk. The caller holds `changed`, which is released while hashing."""
        changed, written = self._output.changed, heapq.heappop(self._unhashed)
        self._hashing = True
        changed.release()
        try:
            self._sha256.update(written.memory[: written.stop - written.start])
        finally:
            changed.acquire()
        self._hashing, self._hashed = False, written.stop
        self._output.finish_part(written)


def finished(directory: Path, shard: Shard) -> ShardRecord | None:
    """Return the record of a shard that an earlier run finished, if the file is unchanged."""
    try:
        content: Any = json.loads(_record_path(directory, shard).read_text(encoding="utf-8"))
        record = ShardRecord(shard.file, str(content["sha256"]), tuple(int(count) for count in content["counts"]))
        path = _final_path(directory, shard)
        if path.stat().st_size == shard.size and sha256_file(path) == record.sha256:
            return record
    except (OSError, ValueError, KeyError, TypeError):
        pass  # no valid record: the shard is written again
    return None


def _can_write_directly(descriptor: int) -> bool:
    """Switch to writing past the page cache; return whether the file system supports that."""
    try:
        _set_direct(descriptor, on=True)
    except OSError:
        return False
    return True


def _set_direct(descriptor: int, *, on: bool) -> None:
    flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
    fcntl.fcntl(descriptor, fcntl.F_SETFL, flags | os.O_DIRECT if on else flags & ~os.O_DIRECT)


def _final_path(directory: Path, shard: Shard) -> Path:
    return directory / "model" / shard.file


def _part_path(directory: Path, shard: Shard) -> Path:
    return directory / "model" / f"{shard.file}.part"


def _record_path(directory: Path, shard: Shard) -> Path:
    return directory / "records" / f"{shard.file}.json"
