"""Patches that were unpacked into the store, for what needs a model's files."""

from dataclasses import replace
from pathlib import Path

from rammerge import store
from rammerge.checkpoints.checkpoint import Checkpoint, open_checkpoint
from rammerge.checkpoints.digest import digest_checkpoint, digest_file
from rammerge.checkpoints.patched.place import FILE
from rammerge.patches.unpacking import write_files

# Raise this when the same patch is unpacked into different files.
_VERSION = 2


def unpacked(agent: Checkpoint, base: Checkpoint) -> Checkpoint:
    """Return the agent of a patch as files, which are written once and kept.

    Raises:
        InputError: the patch is damaged.
    """

    def build(directory: Path) -> None:
        write_files(agent.path, base, directory)

    inputs = {"patch": digest_file(agent.path / FILE).sha256, "base": digest_checkpoint(base).digest}
    entry = store.materialise("unpacked", store.key_of("unpack", _VERSION, inputs), build)
    opened = open_checkpoint(entry.path / "model", source=agent.source, revision=agent.revision)
    return replace(opened, notes=agent.notes)
