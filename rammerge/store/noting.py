"""What each home used of the shared store, and when, so that nobody prunes it there.

In the shared store that is one small object for each home. A home writes its own anew at the end of each run.
"""

import json
import tempfile
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rammerge.storage import Place, Stored
from rammerge.store.entries import MANIFEST, root
from rammerge.store.sharing import KINDS, forgiving, place_of
from rammerge.system.home import home, this_home

NOTES = ".uses/"
# A home that has not run for this long keeps nothing any more, and its note goes.
FORGOTTEN_SECONDS = 366 * 24 * 60 * 60.0
_ANY = min(KINDS)


@dataclass(frozen=True)
class Uses:
    """What the homes that share a store noted about its entries, each named `<kind>/<key>`.

    Attributes:
        used: when an entry was used last, in seconds since 1970.
        kept: what the last run of any recipe leads to.
        forgotten: the notes of homes that have not run for a year.
    """

    used: Mapping[str, float]
    kept: Collection[str]
    forgotten: Collection[Stored]


def note_uses(keep: Collection[Path] = ()) -> None:
    """Tell the shared store, if there is one, what this home uses of it.

    Args:
        keep: files and directories of the store here whose entries are to stay there, too.
    """
    with forgiving():
        if place := place_of(_ANY):
            name = f"{NOTES}{this_home()}.json"
            before = _read(place, name)["used"]
            since = time.time() - FORGOTTEN_SECONDS
            used = {entry: at for entry, at in {**before, **_used_here()}.items() if at > since}
            content = {"home": str(home()), "kept": sorted(_entries_of(keep)), "used": used}
            with tempfile.NamedTemporaryFile("w", encoding="utf-8") as file:
                json.dump(content, file, sort_keys=True, allow_nan=False)
                file.flush()
                place.put(name, Path(file.name))


def read_uses(place: Place, now: float) -> Uses:
    """Return what the homes that share a place noted, at the time `now`."""
    used: dict[str, float] = {}
    kept: set[str] = set()
    forgotten = []
    for stored in place.list(NOTES):
        if stored.modified < now - FORGOTTEN_SECONDS:
            forgotten.append(stored)
            continue
        note = _read(place, stored.name)
        kept.update(note["kept"])
        for entry, at in note["used"].items():
            used[entry] = max(at, used.get(entry, 0.0))
    return Uses(used, kept, forgotten)


def _read(place: Place, name: str) -> dict[str, Any]:
    with suppress(ValueError, TypeError, KeyError, AttributeError):  # of a different release
        note = json.loads(place.read(name) or b"{}")
        used = {str(entry): float(at) for entry, at in note["used"].items()}
        return {"kept": [str(entry) for entry in note["kept"]], "used": used}
    return {"kept": [], "used": {}}


def _used_here() -> dict[str, float]:
    """Return when this home used each of its entries last, also in other processes than this one."""
    manifests = (file for kind in sorted(KINDS) for file in (root() / kind).glob(f"*/{MANIFEST}"))
    found = {}
    for file in manifests:
        with suppress(OSError):  # removed meanwhile
            found[f"{file.parent.parent.name}/{file.parent.name}"] = file.stat().st_mtime
    return found


def _entries_of(paths: Collection[Path]) -> Iterator[str]:
    for path in paths:
        if path.is_relative_to(root()):
            yield "/".join(path.relative_to(root()).parts[:2])
