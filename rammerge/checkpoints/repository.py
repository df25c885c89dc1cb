"""A repository on a hub, and which of its files are needed: one model's weights, and what belongs to them."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Self

from rammerge.checkpoints.forms.folders import MARKERS, choose_place, is_reached
from rammerge.checkpoints.forms.foreign import find_foreign
from rammerge.checkpoints.patched.place import FILE as PATCH
from rammerge.checkpoints.stored import ADAPTER, INDEX, WEIGHTS
from rammerge.errors import InputError
from rammerge.system.reading import read_json_object

if TYPE_CHECKING:
    from huggingface_hub.hf_api import ModelInfo

# In order of preference, whole models first. An index stands for its shards; beside a patch, for those of the agent.
_WEIGHTS = (PATCH, WEIGHTS, INDEX, ADAPTER, "pytorch_model.bin", "pytorch_model.bin.index.json", "adapter_model.bin")
_SIDECAR = re.compile(
    r"[^/]+\.(json|jinja|txt|model|py|tiktoken|spm|vocab)|(LICENSE|NOTICE)[^/]*|README\.md|additional_chat_templates/[^/]+\.jinja"
)
_TOP = PurePosixPath()


@dataclass(frozen=True)
class Repository:
    """What a hub says of a repository at a revision.

    Attributes:
        what: the repository and the revision, as messages call them.
        name: `org/name`.
        revision: as the user gave it, if at all.
        commit: the commit SHA.
        sizes: the bytes of each file.
        sha256: the SHA-256 of each file, None for those that the hub does not hash.
    """

    what: str
    name: str
    revision: str | None
    commit: str
    sizes: Mapping[str, int]
    sha256: Mapping[str, str | None]

    @classmethod
    def of(cls, what: str, name: str, revision: str | None, info: "ModelInfo") -> Self:
        """Read the hub's answer."""
        files = {sibling.rfilename: sibling for sibling in info.siblings or []}
        sha256 = {path: file.lfs.sha256 if file.lfs else None for path, file in files.items()}
        sizes = {path: file.size or 0 for path, file in files.items()}
        return cls(what, name, revision, str(info.sha), sizes, sha256)


def sidecars(names: Collection[str], place: PurePosixPath = _TOP) -> list[str]:
    """Return the files among `names` that belong to the model in the directory `place`, besides its weights."""
    inside = {name: PurePosixPath(name) for name in names if PurePosixPath(name).is_relative_to(place)}
    return [name for name, path in inside.items() if _SIDECAR.fullmatch(path.relative_to(place).as_posix())]


def markers(names: Collection[str]) -> list[str]:
    """Return the files among `names` in which trainers record the last step that they finished."""
    return [name for name in names if PurePosixPath(name).name in MARKERS]


def find_place(what: str, folder: Path, names: Collection[str]) -> tuple[PurePosixPath, list[str]]:
    """Return the directory of the repository's weights, and a sentence about it unless it is the top.

    Args:
        what: the repository, for messages.
        folder: its snapshot on disk, which has the `markers`.
        names: the names of all its files.

    Raises:
        InputError: there are no weights, or several directories may be meant.
    """
    places = sorted({PurePosixPath(name).parent for name in names if PurePosixPath(name).name in _WEIGHTS})
    if _TOP in places:
        return _TOP, []
    below = [
        Path(place)
        for place in places
        if is_reached(place) and not any(place != other and place.is_relative_to(other) for other in places)
    ]
    if not below:
        raise _without_weights(what, names)
    chosen, note = choose_place(folder, below, what=what, fix="download one of them and give its directory")
    return PurePosixPath(chosen), [note]


def weights(what: str, folder: Path, names: Collection[str], place: PurePosixPath = _TOP) -> list[str]:
    """Return the weight files to download from the directory `place`. Its index, if any, is already in `folder`.

    Raises:
        InputError: the index names a file that the repository does not have.
    """
    present = frozenset(names)
    found = next(path for name in _WEIGHTS if (path := (place / name).as_posix()) in present)
    if not found.endswith(".index.json"):
        return [found]
    shards = _shards(read_json_object(folder / found), place)
    missing = next((shard for shard in shards if shard not in present), None)
    if missing is not None or not shards:
        raise InputError(
            f"{what} has a {found} that names {missing or 'no shard'}, which is missing; choose a revision"
        )
    return shards


def _shards(index: Mapping[str, object], place: PurePosixPath) -> list[str]:
    weight_map = index.get("weight_map")
    names = {str(shard) for shard in weight_map.values()} if isinstance(weight_map, dict) else set()
    return sorted((place / name).as_posix() for name in names)


def _without_weights(what: str, names: Collection[str]) -> InputError:
    for place in sorted({PurePosixPath(name).parent for name in names}):
        beside = [path.name for name in names if (path := PurePosixPath(name)).parent == place]
        if foreign := find_foreign(beside):
            return InputError(f"{what} contains {foreign.name}, which cannot be read; {foreign.fix}")
    return InputError(
        f"{what} has neither safetensors nor pytorch_model.bin weights; choose a different model, or download it and "
        "give the directory if its weights have other names"
    )
