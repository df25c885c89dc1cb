"""Models that are kept as patches of the base: their files while something needs them, and packing them afterwards."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Self, TypeVar

from rammerge import store
from rammerge.checkpoints.checkpoint import Checkpoint, open_checkpoint
from rammerge.checkpoints.digest import digest_checkpoint
from rammerge.checkpoints.patched.container import read_patch
from rammerge.checkpoints.patched.place import FILE, is_patch
from rammerge.errors import RammergeError
from rammerge.patches.keeping import base_of_entry, drop_unpacked, is_shared, pack_entry, unpack_entry, unpacked
from rammerge.store import Entry
from rammerge.system.atomic import write_json
from tasks.runtime.progress import progress
from tasks.runtime.result import Result
from tasks.runtime.step import step
from tasks.steps.sources import Model, open_model

M = TypeVar("M", bound=Model)


@contextmanager
def in_files(model: M) -> Iterator[M]:
    """Yield a model with a directory that transformers can load; a patch is unpacked for it, and is in the store then.

    Raises:
        RammergeError: the patch is gone or damaged, or its base is.
    """
    if not _is_in_store(model):
        if not is_patch(model.path):
            yield model
            return
        base = _base_of(model)
        model = model.model_copy(update={"path": unpacked(open_model(model, base), base).path})
    with store.using(model.path.parent.parent.name, model.path.parent.name):
        packed = is_patch(model.path)
        if not packed:
            yield model
    if packed:
        unpack_entry(model.path, _base_of(model))
        with in_files(model) as found:
            yield found


def directory_of(model: Model) -> Path:
    """Return the directory with a model's files; see `in_files`."""
    with in_files(model) as whole:
        return whole.path


def is_usable(model: Model) -> bool:
    """Return whether a model has its files, or the base that it can be unpacked with is still there."""
    if not is_patch(model.path):
        return True
    try:
        return digest_checkpoint(_base_of(model)).digest == read_patch(model.path).contents.base
    except RammergeError:
        return False


class Packed(Result):
    """What `pack` did.

    Attributes:
        models: the directories of the variants that are to be patches.
        saved: the bytes that were saved, by variant that was packed now.
    """

    models: dict[str, Path]
    saved: dict[str, int]

    @classmethod
    def read(cls, entry: Entry) -> Self:
        """Return the result that `pack` wrote."""
        packed = json.loads((entry.path / "packed.json").read_text("utf-8"))
        models = {name: store.here(Path(model)) for name, model in packed["models"].items()}
        return cls(path=entry.path, digest=entry.digest, models=models, saved=packed["saved"])

    def holds(self) -> bool:
        """Return whether all of them are patches, but for those that are registered."""
        return all(is_patch(model) or is_shared(model) for model in self.models.values())


@step("pack", version=1, run_name="pack variants", result=Packed)
def pack(out: Path, base: Model, agents: Mapping[str, Model], variants: Mapping[str, Model], selected: str) -> None:
    """Exchange the variants that were not selected, in the store, for patches of the base; write `packed.json`.

    Variants that a registered version shares its files with stay, because their patches would free nothing. Those that
    another process uses stay until a later run. The files that agents were unpacked into, if they are patches, go.
    """
    opened, report = open_checkpoint(base.path), progress()
    models = {name: model.path for name, model in variants.items() if name != selected}
    saved = {}
    for number, (name, model) in enumerate(models.items()):
        report(number / len(models), name)
        if not is_patch(model) and not is_shared(model):
            before = _weights(model)
            pack_entry(model, opened)
            saved[name] = before - _weights(model)
    for agent in agents.values():
        if is_patch(agent.path):
            drop_unpacked(agent.path, opened)
    write_json(out / "packed.json", {"models": {name: str(path) for name, path in models.items()}, "saved": saved})


def _is_in_store(model: Model) -> bool:
    return not model.source


def _base_of(model: Model) -> Checkpoint:
    base = model.base or base_of_entry(model.path)
    if base is None:
        raise RammergeError(f"{model.path / FILE} does not say what it is a patch of; remove it and run again")
    return open_checkpoint(base)


def _weights(model: Path) -> int:
    return sum(file.stat().st_size for file in model.glob("*.safetensors"))
