"""How an entry is written down in the shared store."""

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Self

# Bytes of a file that is a part of the manifest: an object less to ask for.
_SMALL = 64 << 10


class DamagedError(Exception):
    """What the shared store has is not what was put there; the message is a part of a sentence."""


@dataclass(frozen=True)
class Item:
    """A file of an entry.

    Attributes:
        name: its path in the entry.
        size: bytes.
        sha256: of its content.
        content: of a small file.
    """

    name: str
    size: int
    sha256: str
    content: bytes | None


@dataclass(frozen=True)
class Parcel:
    """The files of an entry, and how many seconds they took to make, if that was noted."""

    files: tuple[Item, ...]
    seconds: float | None

    @classmethod
    def pack(cls, directory: Path, manifest: Mapping[str, Any]) -> Self:
        """Return what is to be put into the shared store of the entry in `directory` with that manifest."""
        files = []
        for name, known in sorted(manifest["files"].items()):
            content = (directory / name).read_bytes() if known["size"] <= _SMALL else None
            files.append(Item(name, known["size"], known["sha256"], content))
        return cls(tuple(files), manifest.get("seconds"))

    def to_json(self) -> bytes:
        """Return what `read` reads."""
        files = {item.name: _described(item) for item in self.files}
        content = {"files": files, "seconds": self.seconds}
        return json.dumps(content, indent=1, sort_keys=True, allow_nan=False).encode()

    @classmethod
    def read(cls, content: bytes) -> Self:
        """Return what was written down.

        Raises:
            DamagedError: it is not what `to_json` writes.
        """
        try:
            described = json.loads(content)
            files = tuple(_item(name, known) for name, known in sorted(described["files"].items()))
            return cls(files, described["seconds"])
        except (ValueError, KeyError, TypeError, AttributeError, binascii.Error) as error:
            raise DamagedError("its manifest cannot be read") from error

    def is_alike(self, other: bytes) -> bool:
        """Return whether another parcel, as `to_json` writes it, has the same files."""
        try:
            return Parcel.read(other).files == self.files
        except DamagedError:
            return False


def _described(item: Item) -> dict[str, Any]:
    inline = {} if item.content is None else {"content": base64.b64encode(item.content).decode()}
    return {"size": item.size, "sha256": item.sha256, **inline}


def _item(name: str, known: Mapping[str, Any]) -> Item:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.parts or path.parts[0].startswith(".manifest"):
        raise DamagedError(f"it names the file {name!r}, which would not be a part of it")
    content = base64.b64decode(known["content"], validate=True) if "content" in known else None
    return Item(name, int(known["size"]), str(known["sha256"]), content)
