"""From a patch and its base to the agent's files."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Mapping, Sequence
from contextlib import closing
from itertools import accumulate
from pathlib import Path

from rammerge.checkpoints.checkpoint import Checkpoint
from rammerge.checkpoints.family import Source
from rammerge.checkpoints.headers import Read
from rammerge.checkpoints.layout import OutputTensor, Shard
from rammerge.checkpoints.patched.container import read_patch
from rammerge.checkpoints.patched.opening import open_patch
from rammerge.checkpoints.patched.originals import OriginalFile
from rammerge.checkpoints.patched.tensors import PatchedTensor
from rammerge.engine.output.chunks import Chunk, cut
from rammerge.engine.output.shards import Output, ShardWriter
from rammerge.engine.progress import OnProgress, Progress
from rammerge.patches.files import copy_companions
from rammerge.patches.planning import open_source
from rammerge.publishing.publish import publish
from rammerge.publishing.room import check_output
from rammerge.publishing.staging import keep_only, locked_staging
from rammerge.system.paths import expanded
from rammerge.system.reading import opened
from rammerge.system.threads import work_through

# A multiple of what direct writing needs, and of all element sizes. Blocks at both ends are decoded twice.
_CHUNK_BYTES = 1 << 22


def unpack(
    base: Source,
    patch: str | Path,
    out: str | Path,
    *,
    threads: int | None = None,
    force: bool = False,
    progress: OnProgress | None = None,
) -> Path:
    """Write the files of the agent that was packed, bit for bit, and check them by their SHA-256. Return `out`.

    `out` appears whole or not at all.

    Args:
        base: what the agent was packed against: a directory, a hub id `org/name[@revision]`, or a checkpoint.
        patch: a directory that `pack` wrote.
        out: the directory to make.
        threads: worker threads; default: one for each processor.
        force: replace an existing `out`.
        progress: called as the work advances.

    Raises:
        InputError: `patch` is not a patch of this base, or is damaged; or `out` cannot be written.
        RammergeError: the disk is full.
    """
    out, directory = expanded(out).absolute(), expanded(patch).absolute()
    contents = read_patch(directory).contents
    needed = sum(file.size for file in (*contents.weights.values(), *contents.companions.values()))
    check_output(out, force=force, needed_bytes=needed, inputs=[directory])
    opened_base = open_source(base)
    check_output(out, force=force, needed_bytes=needed, inputs=[opened_base.path])
    with locked_staging(out, kept="") as staging:
        keep_only(staging, ())
        write_files(directory, opened_base, staging, threads, progress)
        publish(staging, out)
    return out


def write_files(
    patch: Path,
    base: Checkpoint,
    staging: Path,
    threads: int | None = None,
    progress: OnProgress | None = None,
) -> None:
    """Write the agent's files into the directory `model` of `staging`, which has none.

    The other arguments and the errors are those of `unpack`.
    """
    originals, model, records = open_patch(patch, base).originals or (), staging / "model", staging / "records"
    for directory in (model, records):
        directory.mkdir()
    shown = _Shown(originals, progress)
    for original in originals:
        _write(staging, original, threads or os.cpu_count() or 1, shown)
    shutil.rmtree(records)
    copy_companions(patch, model, read_patch(patch).contents.companions)


class _Shown:
    """Shows the bytes that were written as elements."""

    def __init__(self, originals: Sequence[OriginalFile], progress: OnProgress | None) -> None:
        self._progress, self._written, self._lock = progress, 0, threading.Lock()
        self._bytes = sum(original.claimed.size for original in originals)
        self._elements = sum(tensor.numel for original in originals for tensor in original.tensors)

    def add(self, nbytes: int) -> None:
        with self._lock:
            self._written += nbytes
            if self._progress is not None:
                self._progress(Progress("unpack", self._elements * self._written // self._bytes, self._elements))


def _write(staging: Path, original: OriginalFile, threads: int, shown: _Shown) -> None:
    shard, output = _shard(original), Output(_CHUNK_BYTES)
    tensors = {tensor.name: tensor for tensor in original.tensors}
    writer = ShardWriter(staging, shard, output)

    def work(chunk: Chunk) -> None:
        try:
            memory = output.memory()
            _fill(chunk, memory, tensors, read)
            writer.write(chunk, memory)
            output.wait_for_room()
        except BaseException:
            output.stop()
            raise
        shown.add(chunk.stop - chunk.start)

    # Nothing may write to the file any more when it is closed.
    with closing(writer), closing(output), opened(original.sources) as read:
        work_through(list(cut(shard, _CHUNK_BYTES)), work, threads)
        original.check(writer.finish(()).sha256)


def _fill(chunk: Chunk, memory: memoryview, tensors: Mapping[str, PatchedTensor], read: Read) -> None:
    memory[: len(chunk.header)] = chunk.header
    for piece in chunk.pieces:
        tensor, unit = tensors[piece.unit.tensor], piece.unit
        size = tensor.dtype.itemsize
        tensor.fill(unit.start * size, memory[piece.offset :][: (unit.stop - unit.start) * size], read)


def _shard(original: OriginalFile) -> Shard:
    """Return the place of each byte of the file."""
    header = len(original.header).to_bytes(8, "little") + original.header
    offsets = accumulate((tensor.nbytes for tensor in original.tensors), initial=len(header))
    tensors = tuple(
        OutputTensor(tensor.name, tensor.dtype, tensor.shape, offset, tensor.nbytes)
        for tensor, offset in zip(original.tensors, offsets, strict=False)
    )
    return Shard(original.name, header, tensors, original.claimed.size)
