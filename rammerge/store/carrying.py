"""Entries on their way between this machine's store and the shared one.

In the shared store an entry is one small object, its manifest, and an object for each file that is not small:

    <kind>/<key>/manifest.json   name, size and SHA-256 of each file; the content of those up to 64 KiB
    <kind>/<key>/<sha256>        the content of a larger one

The manifest is written last, on the condition that there is none. So an entry is whole or absent, and of several
writers one wins. Objects are named by their content, so writers of the same entry do not disturb each other.
"""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from rammerge.storage import Place, PlaceError
from rammerge.store.entries import (
    MANIFEST,
    Entry,
    entry_of,
    find,
    known_manifest,
    lock_path,
    remove,
    root,
    sha256_of,
    staging_path,
    use,
)
from rammerge.store.parcels import DamagedError, Item, Parcel
from rammerge.store.sharing import forgiving, place_of, say
from rammerge.system.atomic import sync, write_json
from rammerge.system.locks import locked
from rammerge.system.space import require_space

_TOGETHER = 4
_SHARED = "shared"


def has(kind: str, key: str) -> bool:
    """Return whether the shared store has an entry; nothing is brought here."""
    with forgiving():
        if place := place_of(kind):
            return place.size(_manifest(kind, key)) is not None
    return False


def bring(kind: str, key: str) -> Entry | None:
    """Return an entry, which is brought here if the shared store has it and this one does not, or None."""
    if (entry := find(kind, key)) is not None or place_of(kind) is None:
        return entry
    with locked(lock_path(kind, key)):
        return find(kind, key) or receive(kind, key)


def take(kind: str, key: str, valid: Callable[[Entry], bool], locks: ExitStack) -> Entry | None:
    """Return an entry of the shared store that is `valid`, brought here. The caller holds its lock.

    Before None is returned, `locks` keep others from making the entry, where the shared store has locks.
    """
    entry = _take_valid(kind, key, valid)
    if entry is None and (place := place_of(kind)):
        locks.enter_context(place.alone(f"{kind}/{key}"))
        entry = _take_valid(kind, key, valid)
    return entry


def _take_valid(kind: str, key: str, valid: Callable[[Entry], bool]) -> Entry | None:
    entry = receive(kind, key)
    if entry is not None and not valid(entry):
        _withdraw(kind, key)
        return None
    return entry


def receive(kind: str, key: str) -> Entry | None:
    """Return the shared store's entry after bringing it here, or None. The caller holds its lock."""
    with forgiving():
        if (place := place_of(kind)) and (content := place.read(_manifest(kind, key))) is not None:
            try:
                return _receive(place, kind, key, Parcel.read(content))
            except DamagedError as damage:
                say(f"{place.url}/{kind}/{key} is not used, and removed there: {damage}")
                remove(_incoming(kind, key))
                _withdraw(kind, key)
    return None


def _receive(place: Place, kind: str, key: str, parcel: Parcel) -> Entry:
    incoming = _incoming(kind, key)
    incoming.mkdir(parents=True, exist_ok=True)
    names = {incoming / item.name for item in parcel.files}
    for stray in [file for file in incoming.rglob("*") if file.is_file() and file not in names]:
        stray.unlink()  # of a different output that was there when an earlier process was killed
    _require_space(incoming, parcel, f"{kind}/{key}")
    with ThreadPoolExecutor(_TOGETHER) as pool:
        list(pool.map(partial(_receive_file, place, f"{kind}/{key}", incoming), parcel.files))
    manifest = known_manifest(incoming, {item.name: item.sha256 for item in parcel.files}, parcel.seconds)
    write_json(incoming / MANIFEST, manifest | {_SHARED: place.url})
    final = root() / kind / key
    use(kind, key)
    remove(final)
    incoming.rename(final)
    sync(final.parent)
    return entry_of(final, manifest, reused=True)


def _receive_file(place: Place, entry: str, directory: Path, item: Item) -> None:
    file = directory / item.name
    file.parent.mkdir(parents=True, exist_ok=True)
    for _ in range(2):  # the first may go on with a download that was damaged
        if item.content is not None:
            file.write_bytes(item.content)
        elif not place.get(f"{entry}/{item.sha256}", file):
            raise DamagedError(f"its file {item.name} is missing")
        if file.stat().st_size == item.size and sha256_of(file) == item.sha256:
            sync(file)
            return
        file.unlink()
    raise DamagedError(f"its file {item.name} does not have the SHA-256 that was written down for it")


def offer(kind: str, key: str) -> bool:
    """Put an entry into the shared store, unless it was put there before. The caller holds its lock.

    Returns:
        Whether others have put a different output of the same key there first.
    """
    with forgiving():
        if is_pending(kind, key) and (place := place_of(kind)):
            path = root() / kind / key
            manifest = json.loads((path / MANIFEST).read_text("utf-8"))
            won = _offer(place, f"{kind}/{key}", Parcel.pack(path, manifest), path)
            write_json(path / MANIFEST, manifest | {_SHARED: place.url})
            return not won
    return False


def _offer(place: Place, entry: str, parcel: Parcel, path: Path) -> bool:
    if (theirs := place.read(f"{entry}/manifest.json")) is None:
        relied = _put_files(place, entry, parcel, path)
        if place.create(f"{entry}/manifest.json", parcel.to_json()):
            if relied:
                _put_files(place, entry, parcel, path)  # again, if pruning removed one before it was named
            return True
        if (theirs := place.read(f"{entry}/manifest.json")) is None:
            raise PlaceError(f"{place.url}/{entry} was removed while it was put there")
    return parcel.is_alike(theirs)


def _put_files(place: Place, entry: str, parcel: Parcel, path: Path) -> bool:
    """Put the large files of an entry there that are missing; return whether some were there."""
    large = {f"{entry}/{item.sha256}": item for item in parcel.files if item.content is None}
    missing = {name: item for name, item in large.items() if place.size(name) != item.size}
    for name, item in missing.items():
        place.put(name, path / item.name)
    return len(missing) < len(large)


def is_pending(kind: str, key: str) -> bool:
    """Return whether an entry that is here should be in the shared store, and is not as far as is known here."""
    place = place_of(kind)
    if place is None:
        return False
    try:
        manifest: dict[str, Any] = json.loads((root() / kind / key / MANIFEST).read_text("utf-8"))
    except (OSError, ValueError):
        return False
    return manifest.get(_SHARED) != place.url and not manifest.get("exchanged")


def _withdraw(kind: str, key: str) -> None:
    """Remove an entry from the shared store, the manifest first, so that nobody finds it half removed."""
    with forgiving():
        if place := place_of(kind):
            place.delete(_manifest(kind, key))
            for stored in list(place.list(f"{kind}/{key}/")):
                place.delete(stored.name)


def _manifest(kind: str, key: str) -> str:
    return f"{kind}/{key}/manifest.json"


def _incoming(kind: str, key: str) -> Path:
    """Return the directory in which what arrives is gathered; it survives its process, so that the next one goes on."""
    return staging_path(kind, f"{key}-incoming")


def _require_space(directory: Path, parcel: Parcel, what: str) -> None:
    here = sum(file.stat().st_size for file in directory.rglob("*") if file.is_file())
    require_space(
        directory,
        sum(item.size for item in parcel.files) - here,
        what=f"bringing {what} from the shared store",
        where=str(root()),
        fix="make room, set RAMMERGE_HOME to a larger disk, or give the recipe a smaller store.cache",
    )
