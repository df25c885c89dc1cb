"""From a patch and its base to the agent's files."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from rammerge.checkpoints.checkpoint import Checkpoint
from rammerge.checkpoints.family import Source
from rammerge.checkpoints.fetch import fetch
from rammerge.checkpoints.patched.container import read_patch
from rammerge.checkpoints.patched.opening import open_patch
from rammerge.checkpoints.patched.originals import OriginalFile
from rammerge.engine.session import Progress
from rammerge.patches.files import copy_companions
from rammerge.publishing.publish import publish
from rammerge.publishing.room import check_output
from rammerge.publishing.staging import keep_only, locked_staging


def unpack(
    base: Source,
    patch: str | Path,
    out: str | Path,
    *,
    threads: int | None = None,
    force: bool = False,
    progress: Callable[[Progress], None] | None = None,
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
    out, directory = Path(out).expanduser().absolute(), Path(patch).expanduser().absolute()
    contents = read_patch(directory).contents
    needed = sum(file.size for file in (*contents.weights.values(), *contents.companions.values()))
    check_output(out, force=force, needed_bytes=needed, inputs=[directory])
    opened_base = base if isinstance(base, Checkpoint) else fetch(str(base))
    check_output(out, force=force, needed_bytes=needed, inputs=[opened_base.path])
    with locked_staging(out, kept="") as staging:
        keep_only(staging, ())
        model = staging / "model"
        model.mkdir()
        write_files(directory, opened_base, model, threads, progress)
        publish(staging, out)
    return out


def write_files(
    patch: Path,
    base: Checkpoint,
    directory: Path,
    threads: int | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> None:
    """Write the agent's files into an existing directory. The arguments and errors are those of `unpack`."""
    originals = open_patch(patch, base).originals or ()
    shown = _Shown(originals, progress)
    for original in originals:
        _write(directory / original.name, original, threads, shown)
    copy_companions(patch, directory, read_patch(patch).contents.companions)


class _Shown:
    """Shows the bytes that were written as elements."""

    def __init__(self, originals: Sequence[OriginalFile], progress: Callable[[Progress], None] | None) -> None:
        self._progress, self._written = progress, 0
        self._bytes = sum(original.claimed.size for original in originals)
        self._elements = sum(tensor.numel for original in originals for tensor in original.tensors)

    def add(self, nbytes: int) -> None:
        self._written += nbytes
        if self._progress is not None:
            self._progress(Progress("unpack", self._elements * self._written // self._bytes, self._elements))


def _write(path: Path, original: OriginalFile, threads: int | None, shown: _Shown) -> None:
    sha256 = hashlib.sha256()
    with path.open("wb") as file:
        for piece in original.pieces(threads):
            file.write(piece)
            sha256.update(piece)
            shown.add(len(piece))
        file.flush()
        os.fsync(file.fileno())
    original.check(sha256.hexdigest())
