"""From an agent and its base to a patch: a directory of a fifth to a fiftieth of the size."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path

import numpy as np
from rich.filesize import decimal

from rammerge.checkpoints.family import Source
from rammerge.checkpoints.headers import Read, TensorInfo
from rammerge.checkpoints.patched.blocks import BLOCK, Stored, compress
from rammerge.checkpoints.patched.container import HEADER, TENSOR
from rammerge.checkpoints.patched.encoding import encode
from rammerge.checkpoints.patched.originals import SPAN_BLOCKS
from rammerge.checkpoints.patched.place import FILE
from rammerge.checkpoints.patched.tensors import read_reference
from rammerge.engine.progress import OnProgress, Progress
from rammerge.patches.files import copy_companions, left_out
from rammerge.patches.planning import Plan, open_base, open_source, plan_patch
from rammerge.patches.writing import PatchWriter
from rammerge.publishing.publish import publish
from rammerge.publishing.room import check_output
from rammerge.publishing.staging import keep_only, locked_staging
from rammerge.system.paths import expanded
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
    after: str | Path | None = None,
    threads: int | None = None,
    force: bool = False,
    progress: OnProgress | None = None,
) -> PackReport:
    """Store an agent as its difference from the base, from which `unpack` makes the same files, bit for bit.

    `out` appears whole or not at all.

    Args:
        base: what the agent was trained from: a directory, a hub id `org/name[@revision]`, or a checkpoint.
        agent: the agent, likewise. Weights in other forms than safetensors are converted first.
        out: the directory to make.
        after: a patch of the same base, in the same directory as `out`. The difference is then that from its agent, and
            reading the new patch needs both.
        threads: worker threads; default: one for each processor.
        force: replace an existing `out`.
        progress: called as the work advances.

    Raises:
        InputError: a model cannot be read, or `out` cannot be written.
        RammergeError: the disk is full, or an input changed meanwhile.
    """
    out = expanded(out).absolute()
    check_output(out, force=force, needed_bytes=0)
    (opened_base, parent), opened_agent = open_base(base, after, out), open_source(agent)
    check_output(out, force=force, needed_bytes=0, inputs=[opened_base.path, opened_agent.path])
    plan = plan_patch(opened_base, opened_agent, parent)
    with locked_staging(out, kept="") as staging:
        nbytes = write_patch(staging, plan, threads, progress)
        publish(staging, out)
    weights = sum(file.size for file in plan.contents.weights.values())
    return PackReport(out, nbytes, weights, tuple(left_out(opened_agent)))


@dataclass(frozen=True)
class _Span:
    """Bytes [first, stop) of a tensor, which are whole blocks."""

    tensor: TensorInfo
    reference: TensorInfo | None
    first: int
    stop: int


def write_patch(staging: Path, plan: Plan, threads: int | None = None, progress: OnProgress | None = None) -> int:
    """Write a patch into the directory `model` of `staging`, and return the size of its container.

    The other arguments and the errors are those of `pack`.
    """
    keep_only(staging, ())
    model = staging / "model"
    model.mkdir()
    _write(model / FILE, plan, threads or os.cpu_count() or 1, progress)
    copy_companions(plan.agent.path, model, plan.contents.companions)
    plan.check_unchanged()
    return (model / FILE).stat().st_size


def _write(path: Path, plan: Plan, threads: int, progress: OnProgress | None) -> None:
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


def _spans(plan: Plan) -> Iterator[_Span]:
    for tensor, reference in plan.tensors.values():
        size = SPAN_BLOCKS * BLOCK * tensor.dtype.itemsize
        for first in range(0, max(1, tensor.nbytes), size):  # a tensor without elements has one span, without blocks
            yield _Span(tensor, reference, first, min(first + size, tensor.nbytes))


def _encode(read: Read, span: _Span) -> tuple[_Span, list[Stored]]:
    dtype = span.tensor.dtype
    values, old = (np.empty(span.stop - span.first, np.uint8) for _ in range(2))
    span.tensor.fill(span.first, values.data, read)
    has_base = read_reference(span.reference, span.first // dtype.itemsize, old.data, read)
    cuts = [slice(at, at + BLOCK * dtype.itemsize) for at in range(0, len(values), BLOCK * dtype.itemsize)]
    return span, [encode(values[cut], old[cut] if has_base else None, dtype) for cut in cuts]
