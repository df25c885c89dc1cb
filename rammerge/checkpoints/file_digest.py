"""The identity of one file's content."""

from dataclasses import dataclass


@dataclass(frozen=True)
class FileDigest:
    """Size in bytes and hexadecimal SHA-256 of one file."""

    size: int
    sha256: str
