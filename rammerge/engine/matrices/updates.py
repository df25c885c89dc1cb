"""A file beside the merge for the updates of whole matrices. What a run that was killed finished there is taken up."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

from rammerge.checkpoints.family import Family
from rammerge.checkpoints.headers import TensorInfo
from rammerge.checkpoints.layout import TensorSpec, plan_layout
from rammerge.engine.matrices.directions import Directions
from rammerge.engine.output.disk import allocate, write_from
from rammerge.numerics.dtypes import DTYPES
from rammerge.system.lazy import torch
from rammerge.system.reading import read_into

# The name of the updates among the members, behind them. It is no name that a member can have.
UPDATE = "\0update"
FLOAT32 = DTYPES["float32"]
_HASHED_BYTES = 1 << 22


def with_updates(family: Family, directory: Path) -> Family:
    """Return the family with one more member: float32 updates of its float tensors, in a file of `directory`."""
    tensors = {name: TensorSpec(FLOAT32, family.base.tensors[name].shape) for name in family.floats}
    (shard,) = plan_layout(tensors, sum(spec.nbytes for spec in tensors.values()) + 1).shards
    file = directory / shard.file
    placed = {
        tensor.name: TensorInfo(tensor.name, FLOAT32, tensor.shape, file, tensor.offset, tensor.nbytes)
        for tensor in shard.tensors
    }
    others = {name: info for name, info in family.base.tensors.items() if name not in placed}
    updates = replace(family.base, path=directory, tensors=MappingProxyType({**others, **placed}))
    return replace(family, members=MappingProxyType({**family.members, UPDATE: updates}))


def update_bytes(family: Family) -> int:
    """Return the size of the file."""
    return family.elements * FLOAT32.itemsize


@dataclass(frozen=True)
class Finished:
    """What is known of a tensor whose update is whole.

    Attributes:
        norm: the Frobenius norm of the update, before it was scaled.
        directions: of each task vector, or of their sum.
    """

    norm: float
    directions: tuple[Directions, ...]


class UpdateFile:
    """Updates that are being written. A tensor that none was written for has the update zero."""

    def __init__(self, family: Family, descriptor: int, journal: Path) -> None:
        """Use `updates`, which opens the file."""
        self._infos = family.members[UPDATE].tensors
        self._descriptor = descriptor
        self._journal = journal
        self._lock = threading.Lock()
        self._known: dict[str, Finished] = {}
        self._scaled: set[str] = set()

    def finished(self) -> set[str]:
        """Return the tensors that an earlier run finished, if their bytes are those that it wrote."""
        for line in self._journal.read_text(encoding="utf-8").splitlines() if self._journal.exists() else ():
            with suppress(ValueError, TypeError):  # of a line that was cut off
                name, digest, norm, directions, scaled = json.loads(line)
                if name in self._infos and self._digest(name) == digest:
                    self._known[name] = Finished(norm, tuple(directions))
                    (self._scaled.add if scaled else self._scaled.discard)(name)
        return set(self._known)

    def known(self, name: str) -> Finished:
        """Return what is known of a finished tensor."""
        return self._known[name]

    def write(self, name: str, start: int, memory: memoryview) -> None:
        """Write elements of a tensor's update from `start` on."""
        write_from(self._descriptor, memory, self._infos[name].offset + start * FLOAT32.itemsize)

    def read(self, name: str, start: int, memory: memoryview) -> None:
        """Read elements of a tensor's update from `start` on."""
        read_into(self._descriptor, memory, self._infos[name].offset + start * FLOAT32.itemsize)

    def finish(self, name: str, norm: float, directions: Sequence[Directions] = ()) -> None:
        """Record that a tensor's update is whole, and what is known of it; see `Finished`."""
        self._known[name] = Finished(norm, tuple(directions))
        self._record(name, scaled=False)

    def scale(self, name: str, factor: float) -> None:
        """Multiply a finished tensor's update in place. If that is interrupted, the tensor is no longer finished."""
        if name in self._scaled:
            return
        info = self._infos[name]
        memory = memoryview(bytearray(min(info.nbytes, _HASHED_BYTES)))
        for offset in range(0, info.nbytes, _HASHED_BYTES):
            part = memory[: min(_HASHED_BYTES, info.nbytes - offset)]
            read_into(self._descriptor, part, info.offset + offset)
            torch.frombuffer(part, dtype=torch.float32).mul_(factor)
            write_from(self._descriptor, part, info.offset + offset)
        self._record(name, scaled=True)

    def _record(self, name: str, *, scaled: bool) -> None:
        known = self._known[name]
        line = json.dumps([name, self._digest(name), known.norm, known.directions, scaled]) + "\n"
        with self._lock, self._journal.open("a", encoding="utf-8") as journal:
            journal.write(line)

    def _digest(self, name: str) -> str:
        info, digest = self._infos[name], hashlib.sha256()
        memory = memoryview(bytearray(min(info.nbytes, _HASHED_BYTES)))
        for offset in range(0, info.nbytes, _HASHED_BYTES):
            part = memory[: min(_HASHED_BYTES, info.nbytes - offset)]
            read_into(self._descriptor, part, info.offset + offset)
            digest.update(part)
        return digest.hexdigest()


@contextmanager
def updates(family: Family) -> Iterator[UpdateFile]:
    """Open the file of a family with updates, and make it if it is missing.

    Raises:
        OSError: the disk is full or failed.
    """
    member = family.members[UPDATE]
    member.path.mkdir(exist_ok=True)
    infos = [member.tensors[name] for name in family.floats]
    descriptor = os.open(infos[0].file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        allocate(descriptor, max(info.offset + info.nbytes for info in infos))
        yield UpdateFile(family, descriptor, member.path / "finished.jsonl")
    finally:
        os.close(descriptor)
