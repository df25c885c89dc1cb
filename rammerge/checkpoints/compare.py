"""Compare the bytes of stored tensors or of whole checkpoints, reading only as far as needed."""

from collections.abc import Mapping
from pathlib import Path

from rammerge.checkpoints.headers import TensorInfo
from rammerge.system.reading import opened

_PROBE_BYTES = 1 << 16
_CHUNK_BYTES = 1 << 22


def same_bytes(one: TensorInfo, other: TensorInfo) -> bool:
    """Return whether two tensors have the same dtype, shape and bytes, reading up to the first chunk that differs."""
    if (one.dtype, one.shape) != (other.dtype, other.shape):
        return False
    return same_place(one, other) or _equal_range(one, other, 0, one.nbytes)


def same_tensors(one: Mapping[str, TensorInfo], other: Mapping[str, TensorInfo]) -> bool:
    """Return whether two checkpoints store equal tensors under equal names, in any sharding.

    RL changes either a few elements nearly everywhere or whole layers. So the start of every tensor is compared before
    any tensor is read completely, and a difference is usually found after a few megabytes.
    """
    if one.keys() != other.keys():
        return False
    pairs = [(one[name], other[name]) for name in one]
    if any((a.dtype, a.shape) != (b.dtype, b.shape) for a, b in pairs):
        return False
    pairs = [(a, b) for a, b in pairs if not same_place(a, b)]
    return all(_equal_range(a, b, 0, min(_PROBE_BYTES, a.nbytes)) for a, b in pairs) and all(
        _equal_range(a, b, _PROBE_BYTES, a.nbytes) for a, b in pairs
    )


def same_place(one: TensorInfo, other: TensorInfo) -> bool:
    """Return whether two tensors are the same bytes of the same file, following links."""
    return one.offset == other.offset and one.nbytes == other.nbytes and _same_file(one.file, other.file)


def _same_file(one: Path, other: Path) -> bool:
    return one == other or one.samefile(other)


def _equal_range(one: TensorInfo, other: TensorInfo, begin: int, end: int) -> bool:
    with opened([*one.files, *other.files]) as read:
        size = _PROBE_BYTES
        while begin < end:
            size = min(size, end - begin)
            content, compared = bytearray(size), bytearray(size)
            one.fill(begin, memoryview(content), read)
            other.fill(begin, memoryview(compared), read)
            if content != compared:
                return False
            begin += size
            size = _CHUNK_BYTES
    return True
