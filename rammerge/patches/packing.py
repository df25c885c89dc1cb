"""From an agent and its base to a patch: a directory of a fifth to a fiftieth of the size."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path

import numpy as np
from rich.filesize import decimal

from rammerge.checkpoints.checkpoint import Checkpoint
from rammerge.checkpoints.digest import digest_checkpoint, digest_file, fingerprint
from rammerge.checkpoints.family import Source
from rammerge.checkpoints.fetch import fetch
from rammerge.checkpoints.headers import Read, TensorInfo, parse_header, read_header_text
from rammerge.checkpoints.patched.blocks import BLOCK, Stored, compress
from rammerge.checkpoints.patched.container import HEADER, TENSOR, Contents
from rammerge.checkpoints.patched.encoding import encode
from rammerge.checkpoints.patched.opening import reference_of
from rammerge.checkpoints.patched.originals import SPAN_BLOCKS
from rammerge.checkpoints.patched.place import FILE
from rammerge.checkpoints.patched.tensors import read_reference
from rammerge.checkpoints.tying import embedding_first, vocabulary_matrices
from rammerge.engine.session import Progress
from rammerge.errors import RammergeError
from rammerge.patches.files import companions, copy_companions, left_out, weight_files
from rammerge.patches.writing import PatchWriter
from rammerge.publishing.publish import publish
from rammerge.publishing.room import check_output
from rammerge.publishing.staging import keep_only, locked_staging
from rammerge.system.reading import opened
from rammerge.system.tables import Shown
from rammerge.system.threads import in_order


@dataclass(frozen=True, repr=False)
class PackReport(Shown):
    """A finished patch.

    Attributes:
        path: its directory.
        nbytes: size of the container.
        weights: size of the agent's weight files.
        left_out: names of the agent's files that are not in the patch, such as a trainer's state.
    """

    path: Path
    nbytes: int
    weights: int
    left_out: tuple[str, ...]

    def parts(self) -> list[str]:
        """Return what a shell or a notebook shows."""
        ratio = self.weights / max(1, self.nbytes)
        lines = [f"{self.path}: {decimal(self.nbytes)} for {decimal(self.weights)} of weights ({ratio:.1f}x smaller)"]
        if self.left_out:
            lines.append(f"not in the patch, because they are not the model's: {', '.join(self.left_out)}")
        return lines


def pack(
    base: Source,
    agent: Source,
    out: str | Path,
    *,
    threads: int | None = None,
    force: bool = False,
    progress: Callable[[Progress], None] | None = None,
) -> PackReport:
    """Store an agent as its difference from the base, from which `unpack` makes the same files, bit for bit.

    `out` appears whole or not at all.

    Args:
        base: what the agent was trained from: a directory, a hub id `org/name[@revision]`, or a checkpoint.
        agent: the agent, likewise. Weights in other forms than safetensors are converted first.
        out: the directory to make.
        threads: worker threads; default: one for each processor.
        force: replace an existing `out`.
        progress: called as the work advances.

    Raises:
        InputError: a model cannot be read, or `out` cannot be written.
        RammergeError: the disk is full, or an input changed meanwhile.
    """
    out = Path(out).expanduser().absolute()
    check_output(out, force=force, needed_bytes=0)
    opened_base, opened_agent = _open(base), _open(agent)
    check_output(out, force=force, needed_bytes=0, inputs=[opened_base.path, opened_agent.path])
    states = [fingerprint(checkpoint) for checkpoint in (opened_base, opened_agent)]
    plan = _plan(opened_base, opened_agent)
    with locked_staging(out, kept="") as staging:
        keep_only(staging, ())
        model = staging / "model"
        model.mkdir()
        _write(model / FILE, plan, threads or os.cpu_count() or 1, progress)
        copy_companions(opened_agent.path, model, plan.contents.companions)
        if [fingerprint(checkpoint) for checkpoint in (opened_base, opened_agent)] != states:
            raise RammergeError(f"{opened_agent.path} or its base changed while it was packed; run again")
        nbytes = (model / FILE).stat().st_size
        publish(staging, out)
    weights = sum(file.size for file in plan.contents.weights.values())
    return PackReport(out, nbytes, weights, tuple(left_out(opened_agent)))


@dataclass(frozen=True)
class _Plan:
    """What a patch will contain: the headers of the agent's weight files, and its tensors with their references."""

    contents: Contents
    headers: Mapping[str, bytes]
    tensors: Mapping[str, tuple[TensorInfo, TensorInfo | None]]


@dataclass(frozen=True)
class _Span:
    """Bytes [first, stop) of a tensor, which are whole blocks."""

    tensor: TensorInfo
    reference: TensorInfo | None
    first: int
    stop: int


def _open(source: Source) -> Checkpoint:
    # Without a base, so that no agent is converted to the base's layout or dtypes.
    return source if isinstance(source, Checkpoint) else fetch(str(source))


def _plan(base: Checkpoint, agent: Checkpoint) -> _Plan:
    names = weight_files(agent)
    texts = {name: read_header_text(agent.path / name) for name in names}
    parsed = (parse_header(header, agent.path / name, size)[0] for name, (header, size) in texts.items())
    found = [tensor for tensors in parsed for tensor in tensors.values()]
    references = _other_references(base, agent, found)
    contents = Contents(
        base=digest_checkpoint(base).digest,
        weights={name: digest_file(agent.path / name) for name in names},
        companions={name: digest_file(file) for name, file in companions(agent).items()},
        references=references,
    )
    tensors = {tensor.name: (tensor, _reference(tensor, base, references)) for tensor in found}
    return _Plan(contents, {name: bytes(header) for name, (header, _) in texts.items()}, tensors)


def _reference(tensor: TensorInfo, base: Checkpoint, references: Mapping[str, str]) -> TensorInfo | None:
    found = reference_of(tensor.name, base, references)
    return found if found is not None and found.dtype == tensor.dtype else None


def _other_references(base: Checkpoint, agent: Checkpoint, tensors: list[TensorInfo]) -> dict[str, str]:
    """Return the base's embedding for each vocabulary matrix that the base lacks: a head tied to it, or untied."""
    known = sorted(vocabulary_matrices(base.config, base.tensors), key=embedding_first)
    added = {
        tensor.name: tensor for tensor in tensors if tensor.name not in base.tensors and tensor.name not in base.tied
    }
    return {tensor.name: known[0].name for tensor in vocabulary_matrices(agent.config, added) if known}


def _write(path: Path, plan: _Plan, threads: int, progress: Callable[[Progress], None] | None) -> None:
    names = [*(HEADER + name for name in plan.headers), *(TENSOR + name for name in plan.tensors)]
    pairs = plan.tensors.values()
    files = [file for pair in pairs for info in pair if info is not None for file in info.files]
    total, done = sum(tensor.numel for tensor, _ in pairs), 0
    with opened(files) as read, PatchWriter(path, names, plan.contents) as writer:
        for header in plan.headers.values():
            writer.add_bytes(len(header).to_bytes(4, "little") + compress(header, 3))
        packed = in_order(_spans(plan), partial(_encode, read), threads)
        for name, spans in groupby(packed, key=lambda each: each[0].tensor.name):
            writer.add_blocks(block for _, blocks in spans for block in blocks)
            done += plan.tensors[name][0].numel
            if progress is not None:
                progress(Progress("pack", done, total))


def _spans(plan: _Plan) -> Iterator[_Span]:
    for tensor, reference in plan.tensors.values():
        size = SPAN_BLOCKS * BLOCK * tensor.dtype.itemsize
        for first in range(0, max(1, tensor.nbytes), size):  # a tensor without elements has one span, without blocks
            yield _Span(tensor, reference, first, min(first + size, tensor.nbytes))


def _encode(read: Read, span: _Span) -> tuple[_Span, list[Stored]]:
    dtype = span.tensor.dtype
    return span, [
        _encode_block(read, span, first // dtype.itemsize, min(BLOCK, (span.stop - first) // dtype.itemsize))
        for first in range(span.first, span.stop, BLOCK * dtype.itemsize)
    ]


def _encode_block(read: Read, span: _Span, start: int, elements: int) -> Stored:
    dtype = span.tensor.dtype
    content = np.empty(elements * dtype.itemsize, np.uint8)
    span.tensor.fill(start * dtype.itemsize, content.data, read)
    base = np.empty_like(content)
    return encode(content, base if read_reference(span.reference, start, base.data, read) else None, dtype)
