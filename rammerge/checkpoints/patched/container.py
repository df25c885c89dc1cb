"""The file of a patch: what it says of itself, and the place of every block. Read as if an attacker had written it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from rammerge.checkpoints.file_digest import FileDigest
from rammerge.checkpoints.headers import MAX_HEADER_BYTES, TensorInfo, read_header_and_metadata
from rammerge.checkpoints.patched.blocks import BLOCK, Mode, decompress
from rammerge.checkpoints.patched.place import FILE, is_patch
from rammerge.errors import InputError
from rammerge.system.reading import open_regular, parse_json_object, quote, read_exactly

# Raise this when a reader of the previous format cannot read a new patch.
VERSION = 1
FORMAT = "rammerge-patch"
# Keys of the container's metadata, and prefixes of its tensors.
CONTENTS, SHA256 = "contents", "sha256"
HEADER, TENSOR = "header:", "tensor:"
# One row of the table of a tensor's blocks (rammerge.checkpoints.patched.blocks.Stored).
ROW = np.dtype([("mode", "u1"), ("planes", "u1"), ("content", "<u4"), ("first", "<u4"), ("second", "<u4")])

_SHA256 = re.compile(r"[0-9a-f]{64}")
_TEMPLATES = "additional_chat_templates"


@dataclass(frozen=True)
class Contents:
    """What a patch says of itself.

    Attributes:
        base: the digest of the base (`digest_checkpoint`).
        weights: the original weight files by name.
        companions: the files beside the container by path relative to it.
        references: the base's tensor that a tensor is stored relative to, where it has a different name.
        parent: if the base is the agent of another patch, the name of that patch's directory beside this one's.
    """

    base: str
    weights: Mapping[str, FileDigest]
    companions: Mapping[str, FileDigest]
    references: Mapping[str, str] = field(default_factory=dict)
    parent: str | None = None

    def to_text(self) -> str:
        """Return JSON."""
        return json.dumps(
            {
                "version": VERSION,
                "block": BLOCK,
                "base": self.base,
                "weights": {name: asdict(file) for name, file in self.weights.items()},
                "companions": {name: asdict(file) for name, file in self.companions.items()},
                "references": dict(self.references),
                **({"parent": self.parent} if self.parent is not None else {}),
            }
        )

    @classmethod
    def from_text(cls, text: str, file: Path) -> Self:
        """Return what `to_text` wrote into the patch `file`.

        Raises:
            InputError: it did not write this, or a later version did.
        """
        content = parse_json_object(text.encode(), f"what {file} says of itself", unique_keys=True)
        if content.get("version") != VERSION or content.get("block") != BLOCK:
            raise InputError(
                f"{file} has version {quote(content.get('version'))} of the format and this rammerge reads {VERSION}; "
                "use the rammerge that packed it"
            )
        try:
            references = content["references"]
            if not all(isinstance(name, str) for name in (content["base"], *references.values())):
                raise TypeError("a name that is not text")
            weights = {_weight_name(name): _file(entry) for name, entry in content["weights"].items()}
            companions = {_companion_name(name): _file(entry) for name, entry in content["companions"].items()}
            if twice := weights.keys() & companions.keys():
                raise ValueError(f"it names {quote(min(twice))} twice")
            parent = None if "parent" not in content else _directory_name(content["parent"])
            return cls(content["base"], weights, companions, references, parent)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise refuse(file, f"describes itself wrongly ({error})") from error


@dataclass(frozen=True)
class Patch:
    """A patch whose header has been read.

    Attributes:
        file: the container.
        contents: what it says of itself.
        sha256: the SHA-256 of all that follows the header.
        stored: the container's tensors.
    """

    file: Path
    contents: Contents
    sha256: str
    stored: Mapping[str, TensorInfo]

    def header(self, name: str) -> bytes:
        """Return the JSON of the header of the original file `name`."""
        info = self._stored(HEADER + name)
        with open_regular(self.file) as (descriptor, _):
            content = bytes(read_exactly(descriptor, info.nbytes, info.offset, self.file))
        size, frame = int.from_bytes(content[:4], "little"), content[4:]
        if size > min(MAX_HEADER_BYTES, self.contents.weights[name].size):
            raise refuse(self.file, f"claims a header of {size} bytes for {name}")
        try:
            return decompress(frame, size).tobytes()
        except ValueError as error:
            raise refuse(self.file, f"has a damaged header of {name} ({error})") from error

    def table(self, tensor: TensorInfo) -> tuple[NDArray[Any], NDArray[np.int64]]:
        """Return the rows of the blocks of an original tensor, and where each one's frames are, and their end."""
        info = self.record(tensor.name)
        rows = -(-tensor.numel // BLOCK)
        if rows * ROW.itemsize > info.nbytes:
            raise refuse(self.file, f"has too few bytes for {quote(tensor.name)}")
        frames = info.nbytes - rows * ROW.itemsize
        with open_regular(self.file) as (descriptor, _):
            content = read_exactly(descriptor, rows * ROW.itemsize, info.offset + frames, self.file)
        table = np.frombuffer(content, ROW)
        sizes = table["first"].astype(np.int64) + table["second"]
        ends = np.cumsum(sizes)
        if (ends[-1] if rows else 0) != frames or not _is_possible(table, sizes, tensor.dtype.itemsize):
            raise refuse(self.file, f"has an impossible table of blocks for {quote(tensor.name)}")
        return table, info.offset + np.concatenate(([0], ends))

    def record(self, tensor: str) -> TensorInfo:
        """Return where the frames and the table of an original tensor are."""
        return self._stored(TENSOR + tensor)

    def _stored(self, name: str) -> TensorInfo:
        if name not in self.stored or self.stored[name].dtype.code != "U8":
            raise refuse(self.file, f"does not store {quote(name)}")
        return self.stored[name]


def read_patch(directory: Path) -> Patch:
    """Read the header of the patch in `directory`.

    Raises:
        InputError: it is not a patch, or is damaged.
    """
    file = directory / FILE
    if not is_patch(directory):
        raise InputError(f"{directory} is not a patch; give a directory that `rammerge pack` wrote")
    stored, metadata = read_header_and_metadata(file)
    if metadata.get("format") != FORMAT or not _SHA256.fullmatch(metadata.get(SHA256, "")):
        raise InputError(f"{file} is not a patch; give a directory that `rammerge pack` wrote")
    contents = Contents.from_text(metadata.get(CONTENTS, ""), file)
    return Patch(file, contents, metadata[SHA256], stored)


def refuse(file: Path, fault: str) -> InputError:
    """Return the refusal of a patch that is damaged."""
    return InputError(f"{file} {fault}, so it is damaged; copy it again, or pack the agent again")


def _is_possible(table: NDArray[Any], sizes: NDArray[np.int64], itemsize: int) -> bool:
    """Return whether a table can be that of a tensor whose elements have `itemsize` bytes."""
    same, bitmap, gaps, as_bytes, steps = (table["mode"] == mode for mode in Mode)
    planes, content = table["planes"], table["content"]
    possible = (
        (same & (sizes == 0))
        | (bitmap & (planes <= itemsize) & (content <= BLOCK // 8))
        | (gaps & (planes <= itemsize) & (content <= BLOCK))
        | (steps & (table["first"] == 0) & (planes == 0))
        | (as_bytes & (table["first"] == 0) & ((planes == 1) | (planes == itemsize)))
    )
    # A frame of zstd is hardly larger than its content; so reading a block takes no more memory than the block.
    return bool(np.all(possible) and np.all(sizes <= 3 * BLOCK * itemsize))


def _file(entry: Mapping[str, Any]) -> FileDigest:
    size, sha256 = entry["size"], entry["sha256"]
    if type(size) is not int or not 0 <= size < 2**63 or not _SHA256.fullmatch(sha256):
        raise ValueError("a size or a SHA-256 is not one")
    return FileDigest(size, sha256)


def _directory_name(name: str) -> str:
    if name in ("", ".", "..") or set("/\\\0") & set(name):
        raise ValueError(f"{quote(name)} is not the name of a directory beside the patch")
    return name


def _weight_name(name: str) -> str:
    if not name.endswith(".safetensors") or name == FILE or set("/\\\0") & set(name):
        raise ValueError(f"{quote(name)} is not the name of a weight file")
    return name


def _companion_name(name: str) -> str:
    path = PurePosixPath(name)
    beside = path.parts in ((path.name,), (_TEMPLATES, path.name))
    if not beside or path.name in ("", "..", FILE) or path.as_posix() != name or set("\\\0") & set(name):
        raise ValueError(f"{quote(name)} is not a file beside the patch")
    return name
