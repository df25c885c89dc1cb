"""The sets of safetensors files in a directory. Each set is a model, or looks like one."""

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rammerge.checkpoints.headers import TensorInfo, read_header
from rammerge.errors import InputError
from rammerge.system.reading import quote, read_json_object

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
ADAPTER = "adapter_model.safetensors"

# A shard. Its name contains the number of shards, so that an incomplete set is noticed.
_SHARD = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})(?P<kind>\.[a-z]+)")
# State that trainers keep beside a model: optimizers, schedulers, random states, arguments, heads for training only.
_LEFTOVER = re.compile(
    r"(?:.*[._-])?(?:optim|optimizer|scheduler|sched|scaler|grad_?scaler|rng|rng_?states?|random_states|training_args"
    r"|trainer_state|sampler|dataloader|dl_state|value_head|v_head|custom_checkpoint|extra_state|lr_scheduler)"
    r"(?:[._-].*)?",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class StoredSet:
    """Safetensors files that belong together.

    Attributes:
        directory: the directory of the files.
        files: their sorted names.
        index: the name of the index that lists them, if there is one.
    """

    directory: Path
    files: tuple[str, ...]
    index: str | None = None

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files that determine the tensors, including the index."""
        return tuple(self.directory / name for name in ((self.index,) if self.index else ()) + self.files)

    @property
    def usual(self) -> bool:
        """Whether the file names are the usual ones of a model."""
        return self.index is not None or len(self.files) > 1 or self.files == (WEIGHTS,)

    def read(self) -> dict[str, TensorInfo]:
        """Return the tensors of all files by name.

        Raises:
            InputError: a header cannot be read, two files store the same tensor, or the index contradicts the files.
        """
        tensors: dict[str, TensorInfo] = {}
        for file in self.files:
            for name, tensor in read_header(self.directory / file).items():
                if name in tensors:
                    raise InputError(
                        f"{self.directory} stores {quote(name)} in {tensors[name].file.name} and in {file}; remove the "
                        "stale shard"
                    )
                tensors[name] = tensor
        if self.index is not None:
            _check_index(self.directory / self.index, _weight_map(self.directory / self.index), tensors)
        return tensors


def find_sets(directory: Path, names: Collection[str]) -> list[StoredSet]:
    """Return the sets of safetensors in a directory with entries `names`, in transformers' order of preference.

    Raises:
        InputError: there is an index, but no `model.safetensors`, and the index names a file that is missing.
    """
    sets = [StoredSet(directory, (WEIGHTS,))] if WEIGHTS in names else []
    if INDEX in names:
        try:
            sets.append(StoredSet(directory, _shards(directory / INDEX, frozenset(names)), INDEX))
        except InputError:
            if not sets:
                raise
    known = {ADAPTER, *(name for found in sets for name in found.files)}
    others = [name for name in names if name.endswith(".safetensors") and name not in known and not is_leftover(name)]
    return sets + [StoredSet(directory, tuple(group)) for group in complete_sets(others)]


def main_set(directory: Path, names: Collection[str]) -> StoredSet:
    """Return the set that contains the model in a directory with entries `names`.

    Raises:
        InputError: there is none, or there are several and transformers would load none of them.
    """
    sets = find_sets(directory, names)
    if not sets:
        missing = missing_shards(name for name in names if name.endswith(".safetensors"))
        if missing:
            raise InputError(f"{directory} has {missing}; finish the download or the copy")
        raise InputError(f"{directory} has no safetensors weights; save the model with save_pretrained")
    if not _is_clear(sets):
        raise InputError(
            f"{directory} has {len(sets)} safetensors files and no {INDEX}; add the index of the shards, or leave only "
            "the model's file there"
        )
    return sets[0]


def is_main_set(found: StoredSet, names: Collection[str]) -> bool:
    """Return whether `main_set` gives `found` for its directory, which has entries `names`."""
    sets = find_sets(found.directory, names)
    return _is_clear(sets) and sets[0] == found


def _is_clear(sets: list[StoredSet]) -> bool:
    return len(sets) == 1 or sets[0].index is not None or sets[0].files == (WEIGHTS,)


def complete_sets(names: Iterable[str]) -> list[list[str]]:
    """Return `names` in sets: the shards of a model together, each other file alone, without incomplete shards."""
    families, alone = _families(names)
    return [files for count, files in families if len(files) == count] + [[name] for name in alone]


def missing_shards(names: Iterable[str]) -> str | None:
    """Return the part of a message that says which shards are missing among `names`, or None if none is."""
    for count, files in _families(names)[0]:
        if len(files) < count:
            return f"{len(files)} of the {count} shards that {files[0]} is one of"
    return None


def _families(names: Iterable[str]) -> tuple[list[tuple[int, list[str]]], list[str]]:
    families: dict[tuple[str, str, str], list[str]] = {}
    alone: list[str] = []
    for name in sorted(names):
        found = _SHARD.fullmatch(name)
        if found is None:
            alone.append(name)
        else:
            families.setdefault((found["stem"], found["count"], found["kind"]), []).append(name)
    return [(int(count), files) for (_, count, _), files in families.items()], alone


def is_leftover(name: str) -> bool:
    """Return whether the file `name` has the name of a trainer's state."""
    return _LEFTOVER.fullmatch(name.rpartition(".")[0]) is not None


def _shards(index: Path, names: frozenset[str]) -> tuple[str, ...]:
    weight_map = _weight_map(index)
    for shard in weight_map.values():
        _check_shard_name(index, shard, names)
    return tuple(sorted(set(weight_map.values())))


def _weight_map(index: Path) -> dict[str, str]:
    weight_map = read_json_object(index, unique_keys=True).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise InputError(f"{index} has no weight_map; save the model again")
    return weight_map


def _check_shard_name(index: Path, shard: Any, names: frozenset[str]) -> None:
    # A shard must be a plain name beside the index. The file may be a link, as in the hub's cache.
    if not isinstance(shard, str) or not shard.endswith(".safetensors") or {"/", "\\", "\0"} & set(shard):
        raise InputError(
            f"{index} names the shard {quote(shard)}, which is not a safetensors file beside it; "
            "use an index of plain file names"
        )
    if shard not in names:
        raise InputError(f"{index} names the shard {quote(shard)}, which is missing; finish the download or the copy")


def _check_index(index: Path, weight_map: Mapping[str, str], tensors: Mapping[str, TensorInfo]) -> None:
    for name, shard in weight_map.items():
        if name not in tensors or tensors[name].file.name != shard:
            where = f"it is in {tensors[name].file.name}" if name in tensors else "no shard has it"
            raise InputError(f"{index} says that {shard} stores {quote(name)}, but {where}; save the model again")
