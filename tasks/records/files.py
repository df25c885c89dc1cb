"""The files of a registered version: listed when it is registered, and compared with the list before it serves.

The list lies among the files. Its own digest is a tag of the version, so that a changed list is noticed too.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlparse
from urllib.request import url2pathname

from rammerge.checkpoints.digest import sha256_file
from rammerge.errors import RammergeError
from rammerge.storage import open_bucket
from rammerge.system.atomic import write_json
from rammerge.system.home import home
from tasks.records.scratch import scratch

if TYPE_CHECKING:
    from mlflow.store.artifact.artifact_repo import ArtifactRepository

LIST = "rammerge-files.json"
_PIECE = 1 << 20
_AGAIN = "run the recipe again to register it anew"


def local_path(uri: str) -> Path | None:
    """Return the directory of a `file:` URI or a plain path, or None for artifacts that MLflow keeps elsewhere."""
    parsed = urlparse(uri)
    if parsed.scheme not in ("", "file"):
        return None
    return Path(url2pathname(parsed.path) if parsed.scheme else uri)


def size_of(directory: Path | None) -> int:
    """Return the bytes that removing a directory gives back to this disk; 0 for None, a directory elsewhere."""
    files = [] if directory is None else [file.stat() for file in directory.rglob("*") if file.is_file()]
    return sum(file.st_size for file in files if file.st_nlink == 1)


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

    Files in a bucket are read as a stream; others that MLflow keeps elsewhere are downloaded, one at a time.

    Args:
        source: of the version.
        digest: SHA-256 of its list.

    Raises:
        RammergeError: a file is missing, differs or was added; the message names the first one.
    """
    place = _place(source)
    if LIST not in place.names or (written := _content(place, LIST, digest)) is None:
        raise RammergeError(f"{source}/{LIST} is not the list that was registered; {_AGAIN}")
    listed: dict[str, Any] = json.loads(written)
    for name, entry in sorted(listed.items()):
        if name not in place.names:
            raise RammergeError(f"{source}/{name} is missing; {_AGAIN}")
        if _describe(place.pieces(name)) != entry:
            raise RammergeError(f"{source}/{name} differs from what was registered; {_AGAIN}")
    for name in sorted(place.names - listed.keys() - {LIST}):
        raise RammergeError(f"{source}/{name} was added after the registration; remove it")


@dataclass(frozen=True)
class _Place:
    """Where a version lies: the names of its files, and how to read one of them, piece by piece."""

    names: set[str]
    pieces: Callable[[str], Iterator[bytes]]


def _place(source: str) -> _Place:
    root = local_path(source)
    if root is not None:
        return _Place(set(_files(root)), lambda name: _read(root / name))
    if source.startswith("s3://"):  # read where it lies: a shard need not fit on the disk here
        bucket = open_bucket(source)
        return _Place({stored.name for stored in bucket.list("")}, bucket.stream)
    from mlflow.exceptions import MlflowException
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    repository = get_artifact_repository(source)

    def download(name: str) -> Iterator[bytes]:
        with scratch(home()) as directory:
            try:
                file = Path(repository.download_artifacts(name, str(directory)))
            except MlflowException as error:
                raise RammergeError(f"{source}/{name} cannot be read: {error}") from error
            yield from _read(file)

    return _Place(set(_names_below(repository, None)), download)


def _content(place: _Place, name: str, digest: str) -> bytes | None:
    """Return the content of a file, if that has the SHA-256 `digest`."""
    content = b"".join(place.pieces(name))
    return content if hashlib.sha256(content).hexdigest() == digest else None


def _names_below(repository: "ArtifactRepository", directory: str | None) -> Iterator[str]:
    for entry in repository.list_artifacts(directory):
        if entry.is_dir:
            yield from _names_below(repository, entry.path)
        else:
            yield entry.path


def _describe(pieces: Iterable[bytes]) -> dict[str, Any]:
    hashed, size = hashlib.sha256(), 0
    for piece in pieces:
        hashed.update(piece)
        size += len(piece)
    return {"size": size, "sha256": hashed.hexdigest()}


def _read(file: Path) -> Iterator[bytes]:
    with file.open("rb") as opened:
        while piece := opened.read(_PIECE):
            yield piece


def _files(directory: Path) -> dict[str, Path]:
    return {path.relative_to(directory).as_posix(): path for path in directory.rglob("*") if path.is_file()}
