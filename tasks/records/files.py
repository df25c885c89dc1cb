"""The files of a registered version: listed when it is registered, and compared with the list before it serves.

The list lies among the files. Its own digest is a tag of the version, so that a changed list is noticed too.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar
from urllib.parse import urlparse
from urllib.request import url2pathname

from rammerge.checkpoints.digest import sha256_file
from rammerge.errors import RammergeError
from rammerge.system.atomic import write_json
from rammerge.system.home import home
from tasks.records.scratch import scratch

if TYPE_CHECKING:
    from mlflow.store.artifact.artifact_repo import ArtifactRepository

T = TypeVar("T")

LIST = "rammerge-files.json"
_AGAIN = "run the recipe again to register it anew"


def local_path(uri: str) -> Path | None:
    """Return the directory of a `file:` URI or a plain path, or None for artifacts that MLflow keeps elsewhere."""
    parsed = urlparse(uri)
    if parsed.scheme not in ("", "file"):
        return None
    return Path(url2pathname(parsed.path) if parsed.scheme else uri)


def list_files(directory: Path, known: Mapping[str, str]) -> str:
    """Write the list of the files in `directory` into it, and return the list's SHA-256.

    Args:
        directory: of the version.
        known: SHA-256 by name, relative to `directory`, where no file has to be read for it.
    """
    files = _files(directory)
    sizes = {name: path.stat().st_size for name, path in files.items()}
    digests = {name: known.get(name) or sha256_file(path) for name, path in files.items()}
    write_json(directory / LIST, {name: {"size": sizes[name], "sha256": digests[name]} for name in files})
    return sha256_file(directory / LIST)


def verify_files(source: str, digest: str) -> None:
    """Read every file of the version at `source`, a directory or a URI, and compare it with the list.

    Files that MLflow keeps elsewhere are downloaded for it, one at a time.

    Args:
        source: of the version.
        digest: SHA-256 of its list.

    Raises:
        RammergeError: a file is missing, differs or was added; the message names the first one.
    """
    place = _place(source)
    if LIST not in place.names or place.read(LIST, sha256_file) != digest:
        raise RammergeError(f"{source}/{LIST} is not the list that was registered; {_AGAIN}")
    listed: dict[str, Any] = json.loads(place.read(LIST, Path.read_bytes))
    for name, entry in sorted(listed.items()):
        if name not in place.names:
            raise RammergeError(f"{source}/{name} is missing; {_AGAIN}")
        if place.read(name, _describe) != entry:
            raise RammergeError(f"{source}/{name} differs from what was registered; {_AGAIN}")
    for name in sorted(place.names - listed.keys() - {LIST}):
        raise RammergeError(f"{source}/{name} was added after the registration; remove it")


@dataclass(frozen=True)
class _Place:
    """Where a version lies: the names of its files, and how to read one of them."""

    names: set[str]
    read: "_Read"


class _Read(Protocol):
    def __call__(self, name: str, use: Callable[[Path], T]) -> T:
        """Return what `use` makes of the file, which need not stay afterwards."""


def _place(source: str) -> _Place:
    root = local_path(source)
    if root is not None:
        return _Place(set(_files(root)), lambda name, use: use(root / name))
    from mlflow.exceptions import MlflowException
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    repository = get_artifact_repository(source)

    def read(name: str, use: Callable[[Path], T]) -> T:
        with scratch(home()) as directory:
            try:
                return use(Path(repository.download_artifacts(name, str(directory))))
            except MlflowException as error:
                raise RammergeError(f"{source}/{name} cannot be read: {error}") from error

    return _Place(set(_names_below(repository, None)), read)


def _names_below(repository: "ArtifactRepository", directory: str | None) -> Iterator[str]:
    for entry in repository.list_artifacts(directory):
        if entry.is_dir:
            yield from _names_below(repository, entry.path)
        else:
            yield entry.path


def _describe(file: Path) -> dict[str, Any]:
    return {"size": file.stat().st_size, "sha256": sha256_file(file)}


def _files(directory: Path) -> dict[str, Path]:
    return {path.relative_to(directory).as_posix(): path for path in directory.rglob("*") if path.is_file()}
