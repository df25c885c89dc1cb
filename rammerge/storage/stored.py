"""What is known of an object in a shared place without reading it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Stored:
    """An object in a shared place.

    Attributes:
        name: its name.
        size: bytes.
        modified: when it was put there, in seconds since 1970.
    """

    name: str
    size: int
    modified: float
