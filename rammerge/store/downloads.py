"""Files from a hub in the shared store, named by the SHA-256 that the hub gives. They are no part of an entry."""

import os
from pathlib import Path

from rammerge.store.entries import sha256_of
from rammerge.store.sharing import DOWNLOADS, forgiving, place_of, say


def bring_file(sha256: str, file: Path) -> bool:
    """Write what another machine downloaded, going on with what `file` has of it; return whether it is complete."""
    with forgiving():
        if place := place_of(DOWNLOADS):
            for _ in range(2):  # the first may go on with a download that was damaged
                if not place.get(f"{DOWNLOADS}/{sha256}", file):
                    return False
                if sha256_of(file) == sha256:
                    return True
                os.truncate(file, 0)
            say(f"{place.url}/{DOWNLOADS}/{sha256} is not used, and removed there: its content has a different SHA-256")
            place.delete(f"{DOWNLOADS}/{sha256}")
    return False


def offer_file(sha256: str, file: Path) -> None:
    """Put a file that was downloaded into the shared store, unless it is there."""
    with forgiving():
        if (place := place_of(DOWNLOADS)) and place.size(f"{DOWNLOADS}/{sha256}") is None:
            place.put(f"{DOWNLOADS}/{sha256}", file)
