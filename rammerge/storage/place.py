"""What every shared place does, and opening one."""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from rammerge.errors import InputError
from rammerge.storage.directory import Directory
from rammerge.storage.stored import Stored
from rammerge.system.paths import expanded

if TYPE_CHECKING:
    from rammerge.storage.bucket import Bucket

_BUCKET = "s3://"


class Place(Protocol):
    """Objects by names such as `merge/0a1b/manifest.json`. Every method raises PlaceError if the place fails."""

    @property
    def url(self) -> str:
        """What the user calls the place."""

    def require(self) -> None:
        """Raise PlaceError unless the bucket or the directory exists: it is never made, since its name may be wrong."""

    def size(self, name: str) -> int | None:
        """Return the bytes of an object, or None if there is none."""

    def read(self, name: str) -> bytes | None:
        """Return the content of a small object, or None if there is none."""

    def get(self, name: str, file: Path) -> bool:
        """Append to `file` what it lacks of an object, which resumes a download; return whether there is one."""

    def put(self, name: str, file: Path) -> None:
        """Make an object of a file. An attempt that was killed is resumed by the next one of the same machine."""

    def create(self, name: str, content: bytes) -> bool:
        """Make a small object unless there is one. Return whether it has this content: of several writers, one wins."""

    def list(self, prefix: str) -> Iterator[Stored]:
        """Yield the objects whose names begin with `prefix`, which is empty or ends with a slash."""

    def delete(self, name: str) -> None:
        """Remove an object, if it is there."""

    def sweep(self, prefix: str, before: float) -> None:
        """Remove what writers that were killed before a time left below `prefix`, and `list` does not show.

        Args:
            prefix: as for `list`.
            before: in seconds since 1970.
        """

    def alone(self, name: str) -> AbstractContextManager[None]:
        """Keep other machines from the same `name` while the context lasts, where the place has locks."""


def open_place(url: str, *, impatient: bool = False) -> Place:
    """Return the place `s3://BUCKET[/PREFIX]`, or the directory of that path. Nothing is asked of it yet.

    Args:
        url: what the user calls it.
        impatient: whether a bucket's faults are to show within seconds, instead of being waited for.

    Raises:
        InputError: it is neither, or a package that it needs is missing.
    """
    if url.startswith(_BUCKET):
        return open_bucket(url, impatient=impatient)
    if "://" in url:
        raise InputError(f"{url} is not a place to share; give a directory, or s3://BUCKET/PREFIX")
    return Directory(expanded(url).absolute())


def open_bucket(url: str, *, impatient: bool = False) -> "Bucket":
    """Return the place `s3://BUCKET[/PREFIX]`; see `open_place`."""
    try:
        from rammerge.storage.bucket import Bucket  # boto3 takes a third of a second to import
    except ImportError as error:
        raise InputError(f"{url} needs boto3, which is not installed; `pip install 'rammerge[s3]'`") from error
    bucket, _, prefix = url.removeprefix(_BUCKET).partition("/")
    if not bucket:
        raise InputError(f"{url} names no bucket; write s3://BUCKET/PREFIX")
    return Bucket(bucket, prefix.strip("/"), impatient=impatient)
