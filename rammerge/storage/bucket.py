"""A bucket of an object store that speaks S3: AWS, or any other with conditional writes.

Address, region and credentials are those of every tool for AWS (AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, AWS_PROFILE, ...).
"""

import base64
import hashlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError, IncompleteReadError, ReadTimeoutError, ResponseStreamingError

from rammerge.storage.faults import client_of, code_of, explained
from rammerge.storage.multipart import PART, upload
from rammerge.storage.stored import Stored
from rammerge.storage.trouble import PlaceError

_PIECE = 1 << 20
_ATTEMPTS = 5
# A download that ends too early, which boto3 does not try again.
_CUT_OFF = (IncompleteReadError, ReadTimeoutError, ResponseStreamingError)


class Bucket:
    """Objects of a bucket below a prefix. See `rammerge.storage.place.Place` for the methods."""

    def __init__(self, bucket: str, prefix: str, *, impatient: bool = False) -> None:
        """Take the bucket's name and the prefix; `impatient` is for a first question, which is not asked again."""
        self._bucket, self._prefix = bucket, f"{prefix}/" if prefix else ""
        self._client = client_of(self.url, impatient=impatient)

    @property
    def url(self) -> str:
        """The bucket and the prefix as an address."""
        return f"s3://{self._bucket}/{self._prefix}".rstrip("/")

    def require(self) -> None:
        """Raise PlaceError unless the bucket exists."""
        with explained(self.url):
            self._client.head_bucket(Bucket=self._bucket)

    def size(self, name: str) -> int | None:
        """Return the bytes of an object, or None if there is none."""
        with explained(self.url):
            try:
                return int(self._client.head_object(**self._named(name))["ContentLength"])
            except ClientError as error:
                if code_of(error) in ("404", "NoSuchKey", "NotFound"):
                    return None
                raise

    def read(self, name: str) -> bytes | None:
        """Return the content of a small object, or None if there is none."""
        content = bytearray()
        return bytes(content) if self._receive(name, content.extend, lambda: len(content)) else None

    def get(self, name: str, file: Path) -> bool:
        """Append to `file` what it lacks of an object; return whether there is one."""
        with file.open("ab") as target:
            return self._receive(name, target.write, target.tell)

    def stream(self, name: str) -> Iterator[bytes]:
        """Yield the content of an object in pieces, and nothing if there is none."""
        with explained(self.url):
            found = self._client.get_object(**self._named(name))
            yield from found["Body"].iter_chunks(_PIECE)

    def put(self, name: str, file: Path) -> None:
        """Make an object of a file. A large one goes in parts; those that a killed attempt sent are not sent again."""
        with explained(self.url):
            if file.stat().st_size > PART:
                upload(self._client, self._named(name), file)
            else:
                content = file.read_bytes()
                self._client.put_object(**self._named(name), Body=content, ContentMD5=_md5(content))

    def create(self, name: str, content: bytes) -> bool:
        """Make a small object unless there is one; return whether it has this content."""
        with explained(self.url):
            for _ in range(_ATTEMPTS):
                try:
                    self._client.put_object(
                        **self._named(name), Body=content, ContentMD5=_md5(content), IfNoneMatch="*"
                    )
                    return True
                except ClientError as error:
                    if code_of(error) in ("412", "PreconditionFailed"):
                        return self.read(name) == content  # of an attempt whose answer was lost, perhaps
                    if code_of(error) not in ("409", "ConditionalRequestConflict"):
                        raise
        raise PlaceError(f"{self.url}/{name} is written by others all the time; run again")

    def list(self, prefix: str) -> Iterator[Stored]:
        """Yield the objects whose names begin with `prefix`."""
        with explained(self.url):
            pages = self._client.get_paginator("list_objects_v2")
            for page in pages.paginate(Bucket=self._bucket, Prefix=self._prefix + prefix):
                for found in page.get("Contents", ()):
                    name = found["Key"].removeprefix(self._prefix)
                    yield Stored(name, int(found["Size"]), found["LastModified"].timestamp())

    def delete(self, name: str) -> None:
        """Remove an object, if it is there."""
        with explained(self.url):
            self._client.delete_object(**self._named(name))

    def sweep(self, prefix: str, before: float) -> None:
        """End uploads in parts, below `prefix`, that were begun before a time and never completed."""
        with explained(self.url):
            pages = self._client.get_paginator("list_multipart_uploads")
            for page in pages.paginate(Bucket=self._bucket, Prefix=self._prefix + prefix):
                for begun in page.get("Uploads", ()):
                    if begun["Initiated"].timestamp() < before:
                        self._client.abort_multipart_upload(
                            Bucket=self._bucket, Key=begun["Key"], UploadId=begun["UploadId"]
                        )

    def alone(self, name: str) -> AbstractContextManager[None]:  # noqa: ARG002 (a bucket has no locks)
        """Keep nobody away: of several writers, `create` chooses one."""
        return nullcontext()

    def _named(self, name: str) -> dict[str, str]:
        return {"Bucket": self._bucket, "Key": self._prefix + name}

    def _receive(self, name: str, write: Callable[[bytes], Any], received: Callable[[], int]) -> bool:
        """Hand over an object from the byte on that is not `received` yet, in several requests if one is cut off."""
        with explained(self.url):
            size = self.size(name)
            attempts = 0
            while size is not None and received() < size:
                before = received()
                try:
                    found = self._client.get_object(**self._named(name), Range=f"bytes={before}-")
                    for piece in found["Body"].iter_chunks(_PIECE):
                        write(piece)
                except _CUT_OFF:
                    attempts = 0 if received() > before else attempts + 1
                    if attempts == _ATTEMPTS:
                        raise
        return size is not None


def _md5(content: bytes) -> str:
    """Return what the store compares a body with when it has arrived."""
    return base64.b64encode(hashlib.md5(content, usedforsecurity=False).digest()).decode()
