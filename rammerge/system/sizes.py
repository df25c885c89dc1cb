"""Sizes as people write them."""

import re
from fractions import Fraction

_SIZE = re.compile(r"(\d+(?:\.\d+)?) ?(?:([kmgt])(i?))?b?", re.ASCII | re.IGNORECASE)


def parse_size(text: str) -> int:
    """Return the number of bytes that `text` means (`5GB`, `1.5 GiB`, `800m`, `1000000`).

    Raises:
        ValueError: `text` is not a size.
    """
    match = _SIZE.fullmatch(text.strip())
    if match:
        number, prefix, binary = match.groups()
        power = " kmgt".index((prefix or " ").lower())
        size = int(Fraction(number) * (1024 if binary else 1000) ** power)
        if size:
            return size
    raise ValueError("a size is a number with a unit, such as 5GB or 512MiB")
