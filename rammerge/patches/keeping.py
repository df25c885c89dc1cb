"""Models in the store, as patches or as the files that those stand for.

A model that is the directory `model` of an entry can be exchanged for its patch and back. A patch that the user has is
unpacked into an entry of its own.
"""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from rammerge import store
from rammerge.checkpoints.checkpoint import Checkpoint, open_checkpoint
from rammerge.checkpoints.digest import digest_checkpoint, digest_file
from rammerge.checkpoints.patched.place import FILE, is_patch
from rammerge.patches.files import left_out
from rammerge.patches.packing import write_patch
from rammerge.patches.planning import plan_patch
from rammerge.patches.unpacking import write_files
from rammerge.patches.verifying import verify_patch
from rammerge.system.atomic import write_json

_KIND, _MODEL = "unpacked", "model"
# Beside a patch in the store: where its base is on this machine.
_BASE = "base.json"
# Raise this when the same patch is unpacked into different files.
_VERSION = 2


def unpacked(agent: Checkpoint, base: Checkpoint) -> Checkpoint:
    """Return the agent of a patch as files, which are written once and kept.

    Raises:
        InputError: the patch is damaged.
    """

    def build(directory: Path) -> None:
        write_files(agent.path, base, directory)

    entry = store.materialise(_KIND, unpacked_key(agent.path, base), build)
    opened = open_checkpoint(entry.path / _MODEL, source=agent.source, revision=agent.revision)
    return replace(opened, notes=agent.notes)


def unpacked_key(patch: Path, base: Checkpoint) -> str:
    """Return the key of the entry that holds the files of the agent of a patch."""
    inputs = {"patch": digest_file(patch / FILE).sha256, "base": digest_checkpoint(base).digest}
    return store.key_of("unpack", _VERSION, inputs)


def drop_unpacked(patch: Path, base: Checkpoint) -> None:
    """Remove the files that a patch was unpacked into, unless somebody uses them."""
    store.drop_unused(_KIND, unpacked_key(patch, base))


def is_shared(model: Path) -> bool:
    """Return whether the files of a model in the store are also elsewhere, as those of a registered version are."""
    return any(file.stat().st_nlink > 1 for file in model.glob("*.safetensors"))


def pack_entry(model: Path, base: Checkpoint) -> None:
    """Exchange a model in the store for its patch, of which it is seen first that it gives back every file.

    Nothing is done if the model is a patch already, has files that a patch would not hold, or is used by others.

    Raises:
        RammergeError: the model is gone, the disk is full, or the base has changed.
    """

    def build(entry: Path, directory: Path) -> None:
        agent = open_checkpoint(entry / _MODEL) if not is_patch(entry / _MODEL) else None
        if agent is not None and not left_out(agent):
            write_patch(directory, plan_patch(base, agent))
            verify_patch(directory / _MODEL, base)
            _copy_others(entry, directory)
            write_json(directory / _BASE, str(base.path))

    _exchange(model, build, wait=False)


def base_of_entry(model: Path) -> Path | None:
    """Return the base of a model that `pack_entry` made a patch of, or None if that is not known."""
    try:
        return store.here(Path(json.loads((model.parent / _BASE).read_text("utf-8"))))
    except (OSError, ValueError, TypeError):
        return None


def unpack_entry(model: Path, base: Checkpoint) -> None:
    """Exchange a patch in the store for the model that it stands for, once nobody uses it.

    Raises:
        InputError: the patch is damaged, or not one of this base.
        RammergeError: it is gone, or the disk is full.
    """

    def build(entry: Path, directory: Path) -> None:
        if is_patch(entry / _MODEL):
            write_files(entry / _MODEL, base, directory)
            _copy_others(entry, directory)

    _exchange(model, build, wait=True)


def _exchange(model: Path, build: Callable[[Path, Path], None], *, wait: bool) -> None:
    try:
        store.exchange(model.parent.parent.name, model.parent.name, build, wait=wait)
    except BlockingIOError:
        return


def _copy_others(entry: Path, directory: Path) -> None:
    """Copy what an entry holds beside its model, such as a report."""
    for file in entry.iterdir():
        if file.is_file() and not file.name.startswith("."):
            shutil.copyfile(file, directory / file.name)
