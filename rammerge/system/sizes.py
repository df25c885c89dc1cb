"""Sizes as people write them."""

import re
from fractions import Fraction

from rammerge.errors import InputError

_SIZE = re.compile(r"(\d+(?:\.\d+)?) ?(?:([kmgt])(i?))?(b?)", re.ASCII | re.IGNORECASE)


def parse_size(text: str) -> int:
    """Return the number of bytes that `text` means (`5GB`, `1.5 GiB`, `800m`, `1000000`).

    A number below 1000 needs a unit, because whoever writes 5 does not mean bytes.

    Raises:
        ValueError: `text` is not a size.
    """
    match = _SIZE.fullmatch(text.strip())
    if match:
        number, prefix, binary, byte = match.groups()
        power = " kmgt".index((prefix or " ").lower())
        size = int(Fraction(number) * (1024 if binary else 1000) ** power)
        if size >= 1000 or (size and (prefix or byte)):
            return size
    raise ValueError("a size is a number with a unit, such as 5GB or 512MiB")


def given_size(text: str, where: str) -> int:
    """Return the number of bytes that `text` means; InputError, which begins with `where`, if it is not a size."""
    try:
        return parse_size(text)
    except ValueError as error:
        raise InputError(f"{where}: {error}") from error
