"""What a patch will contain, decided before anything is written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rammerge.checkpoints.checkpoint import Checkpoint
from rammerge.checkpoints.digest import digest_checkpoint, digest_file, fingerprint
from rammerge.checkpoints.family import Source
from rammerge.checkpoints.fetch import fetch
from rammerge.checkpoints.headers import TensorInfo, parse_header, read_header_text
from rammerge.checkpoints.patched.container import Contents
from rammerge.checkpoints.patched.opening import open_patch, reference_of
from rammerge.checkpoints.tying import embedding_first, vocabulary_matrices
from rammerge.errors import InputError, RammergeError
from rammerge.patches.files import companions, weight_files
from rammerge.store.entries import drop, root
from rammerge.system.paths import expanded


@dataclass(frozen=True)
class Plan:
    """A patch to write.

    Attributes:
        base: what it is relative to.
        agent: what it stands for.
        states: the status of the files of both, before they were read.
        contents: its description of itself.
        headers: the headers of the agent's weight files.
        tensors: the agent's tensors with the base's that each is relative to.
    """

    base: Checkpoint
    agent: Checkpoint
    states: tuple[str, str]
    contents: Contents
    headers: Mapping[str, bytes]
    tensors: Mapping[str, tuple[TensorInfo, TensorInfo | None]]

    def check_unchanged(self) -> None:
        """Check that nothing was written to the models meanwhile.

        Raises:
            RammergeError: something was.
        """
        if (fingerprint(self.base), fingerprint(self.agent)) != self.states:
            raise RammergeError(f"{self.agent.path} or its base changed while it was packed; run again")


def plan_patch(base: Checkpoint, agent: Checkpoint, parent: str | None = None) -> Plan:
    """Plan the patch of an agent. `parent` names the patch whose agent serves as the base, if there is one.

    Raises:
        InputError: a header cannot be read.
    """
    states = fingerprint(base), fingerprint(agent)
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
        parent=parent,
    )
    tensors = {tensor.name: (tensor, _reference(tensor, base, references)) for tensor in found}
    return Plan(base, agent, states, contents, {name: bytes(header) for name, (header, _) in texts.items()}, tensors)


def open_base(base: Source, after: str | Path | None, out: Path) -> tuple[Checkpoint, str | None]:
    """Return what a patch is to be relative to: the base, or the agent of a patch beside `out`, and that patch's name.

    Raises:
        InputError: either cannot be read, or the patch is elsewhere, or at the end of a chain that is too long.
    """
    opened_base = open_source(base)
    if after is None:
        return opened_base, None
    parent = expanded(after).resolve()
    if parent.parent != out.parent.resolve():
        raise InputError(
            f"{parent} is not beside {out}, where the new patch would look for it; pack into {parent.parent}"
        )
    return open_patch(parent, opened_base, links=2), parent.name


def open_source(source: Source) -> Checkpoint:
    """Open a model as it is: without a base, so that no agent is converted to the base's layout or dtypes."""
    return source if isinstance(source, Checkpoint) else fetch(str(source))


@contextmanager
def opened_like(directory: Path, base: Checkpoint) -> Iterator[Checkpoint]:
    """Open an agent as merges read it, in the base's layout and dtypes. A conversion for this is then removed."""
    kept = root() / "converted"
    before = set(kept.iterdir()) if kept.is_dir() else set()
    opened = fetch(str(directory), base=base)
    try:
        yield opened
    finally:
        if opened.path.parent == kept and opened.path not in before:
            drop(kept.name, opened.path.name)


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
