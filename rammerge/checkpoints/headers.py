"""Safetensors headers, read as if an attacker had written them.

The format (github.com/huggingface/safetensors, "Format"): eight bytes N (unsigned, little endian), N bytes of JSON
that map each name to its dtype, shape and data offsets, then the data. As in the reference implementation, a header
above 100 MB is refused, and the tensors must cover the data from its first byte to the end of the file without holes
or overlaps. A size that a file claims is checked against the real size before anything is read or allocated.
"""

import math
import struct
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rammerge.errors import InputError
from rammerge.numerics.dtypes import DTYPES, DType
from rammerge.system.reading import open_regular, parse_json_object, quote, read_exactly

# What stands in the place of a large file of a repository that was cloned without it.
LFS_POINTER = b"version https://git-lfs.github.com/spec/"
MAX_HEADER_BYTES = 100_000_000
# PyTorch's tensor iterators allow at most 64 dimensions. No weight has nearly as many.
MAX_DIMENSIONS = 64

_BY_CODE = {dtype.code: dtype for dtype in DTYPES.values()}
# In these dtypes several elements share a byte. Only quantized weights use them.
_PACKED_DTYPES = frozenset({"F4", "F6_E2M3", "F6_E3M2"})


# Fills memory from an offset of a file.
Read = Callable[[Path, int, memoryview], None]


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """Where one tensor is stored: `nbytes` row-major, little-endian bytes at `offset` of `file`."""

    name: str
    dtype: DType
    shape: tuple[int, ...]
    file: Path
    offset: int
    nbytes: int

    @property
    def numel(self) -> int:
        """Number of elements; 1 for a 0-d tensor."""
        return math.prod(self.shape)

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that `fill` reads."""
        return (self.file,)

    @property
    def is_encoded(self) -> bool:
        """Whether `fill` computes the bytes; else they are in the file as they are."""
        return False

    @property
    def held(self) -> memoryview | None:
        """The tensor's bytes if they are in memory (rammerge.checkpoints.held)."""
        return None

    def fill(self, first: int, memory: memoryview, read: Read) -> None:
        """Fill `memory` with the tensor's bytes from byte `first`, by way of `read`."""
        read(self.file, self.offset + first, memory)

    def extent(self, first: int, stop: int) -> tuple[int, int]:
        """Return offset and length of the part of `file` that bytes [first, stop) of the tensor are read from."""
        return self.offset + first, stop - first

    def head_rows(self, rows: int) -> "TensorInfo":
        """Return a view of the first `rows` rows. The order is row-major, so they are a prefix of the same bytes."""
        if not self.shape or not 0 <= rows <= self.shape[0]:
            raise ValueError(f"{self.name} of shape {list(self.shape)} has no first {rows} rows")
        nbytes = self.nbytes // self.shape[0] * rows if self.shape[0] else 0
        return replace(self, shape=(rows, *self.shape[1:]), nbytes=nbytes)


def read_header(file: Path) -> dict[str, TensorInfo]:
    """Return the tensors of the safetensors file `file` by name, in the order of their data.

    Raises:
        InputError: the file is not a regular file, cannot be read, is truncated, or has an invalid header.
    """
    return read_header_and_metadata(file)[0]


def read_header_and_metadata(file: Path) -> tuple[dict[str, TensorInfo], dict[str, str]]:
    """Return what `read_header` returns, and the text that the writer put beside it (`__metadata__`)."""
    content, size = read_header_text(file)
    return parse_header(content, file.absolute(), size)


def read_header_text(file: Path) -> tuple[bytearray, int]:
    """Return the JSON of the header of the safetensors file `file` as bytes, and the file's size; see `read_header`."""
    file = file.absolute()
    with open_regular(file) as (descriptor, size):
        if read_exactly(descriptor, min(size, len(LFS_POINTER)), 0, file) == LFS_POINTER:
            raise refuse_lfs_pointer(file)
        if size < 8:
            raise InputError(f"{file} is {size} bytes long, too short for a safetensors file; download it again")
        (length,) = struct.unpack("<Q", read_exactly(descriptor, 8, 0, file))
        if length > MAX_HEADER_BYTES:
            raise _refuse(file, f"claims a header of {length} bytes, above the format's {MAX_HEADER_BYTES}")
        if length > size - 8:
            raise InputError(
                f"{file} is truncated: its header claims {length} bytes and the file has {size} in all; "
                "download or save it again"
            )
        if length < 2 or read_exactly(descriptor, 1, 8, file) != b"{":
            raise _refuse(file, "does not start with a JSON header")
        return read_exactly(descriptor, length, 8, file), size


def parse_header(content: bytes | bytearray, file: Path, size: int) -> tuple[dict[str, TensorInfo], dict[str, str]]:
    """Return what `read_header_and_metadata` returns, from the JSON of the header of a file of `size` bytes."""
    start = 8 + len(content)
    header = parse_json_object(content, f"the header of {file}", unique_keys=True)
    metadata = header.pop("__metadata__", {})
    _check_metadata(file, metadata)
    tensors = [_tensor(file, name, entry, start, size) for name, entry in header.items()]
    # An empty tensor comes before the tensor at the same offset, so that offsets never go back in the walk below.
    tensors.sort(key=lambda tensor: (tensor.offset, tensor.nbytes))
    _check_layout(file, tensors, start, size)
    return {tensor.name: tensor for tensor in tensors}, metadata


def refuse_lfs_pointer(file: Path) -> InputError:
    """Return the refusal of a `file` whose content was left out when its repository was cloned."""
    return InputError(f"{file} is a Git LFS pointer to the weights; fetch them with `git lfs pull` in the repository")


def _tensor(file: Path, name: str, entry: Any, data_start: int, size: int) -> TensorInfo:
    if any("\ud800" <= character <= "\udfff" for character in name):
        raise _refuse(file, f"names a tensor {quote(name)}, which is not text")
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise _refuse(file, f"describes {quote(name)} by something other than dtype, shape and data_offsets")
    begin, end = _offsets(file, name, entry["data_offsets"])
    if end > size - data_start:
        raise InputError(
            f"{file} is truncated: {quote(name)} ends at byte {data_start + end} and the file has {size}; "
            "download or save it again"
        )
    dtype = _dtype(file, name, entry["dtype"])
    shape = _shape(file, name, entry["shape"])
    if math.prod(shape) * dtype.itemsize != end - begin:
        raise _refuse(file, f"gives {quote(name)} {end - begin} bytes, but its dtype and shape need a different number")
    return TensorInfo(name, dtype, shape, file, data_start + begin, end - begin)


def _dtype(file: Path, name: str, value: Any) -> DType:
    if isinstance(value, str) and value in _BY_CODE:
        return _BY_CODE[value]
    if isinstance(value, str) and value in _PACKED_DTYPES:
        raise InputError(
            f"{file} stores {quote(name)} quantized as {value}; use the checkpoint in bfloat16, float16 or float32"
        )
    raise _refuse(file, f"gives {quote(name)} the unknown dtype {quote(value)}")


def _shape(file: Path, name: str, value: Any) -> tuple[int, ...]:
    if not isinstance(value, list) or len(value) > MAX_DIMENSIONS or not all(_is_size(size) for size in value):
        raise _refuse(file, f"gives {quote(name)} an impossible shape")
    # As in the reference implementation every prefix must fit too: [2**62, 4, 0] has no strides.
    numel = 1
    for extent in value:
        numel *= extent
        if numel >= 2**63:
            raise _refuse(file, f"gives {quote(name)} a shape with more elements than 64 bits can count")
    return tuple(value)


def _offsets(file: Path, name: str, value: Any) -> tuple[int, int]:
    if not isinstance(value, list) or len(value) != 2 or not all(_is_size(offset) for offset in value):
        raise _refuse(file, f"gives {quote(name)} impossible data offsets")
    begin, end = value
    if begin > end:
        raise _refuse(file, f"lets {quote(name)} end before it begins")
    return begin, end


def _is_size(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**63  # bool is an int to isinstance


def _check_layout(file: Path, tensors: list[TensorInfo], data_start: int, size: int) -> None:
    position = data_start
    for tensor in tensors:
        if tensor.offset != position:
            fault = "overlaps the tensor before it" if tensor.offset < position else "leaves a hole before it"
            raise _refuse(file, f"is laid out so that {quote(tensor.name)} {fault}")
        position += tensor.nbytes
    if position != size:
        raise _refuse(file, f"has {size - position} bytes after its last tensor")


def _check_metadata(file: Path, metadata: Any) -> None:
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise _refuse(file, "has a __metadata__ entry that is not a map of strings")


def _refuse(file: Path, fault: str) -> InputError:
    return InputError(f"{file} {fault}, so it is not a valid safetensors file; download or save it again")
