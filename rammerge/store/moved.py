"""Paths that entries note, in a home that was restored in a place of its own."""

import re
from pathlib import Path

from rammerge.store.entries import root

_KEY = re.compile(r"[0-9a-f]{40}")


def here(path: Path) -> Path:
    """Return where a file of the store that an entry names lies now; any other path is returned as it is.

    An entry never changes, so its paths are those of the home in which it was made, which may lie elsewhere by now.
    """
    parts = path.parts
    for index in range(len(parts) - 3, -1, -1):
        if parts[index] == root().name and _KEY.fullmatch(parts[index + 2]):
            found = root().joinpath(*parts[index + 1 :])
            return found if found.exists() else path
    return path
