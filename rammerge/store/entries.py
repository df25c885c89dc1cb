"""Entries of the store, each under the digest of everything that determines it.

Layout below `home()/store`. A whole kind, or any single entry, may be deleted at any time:

    <kind>/<key>/             one entry, complete as soon as it is visible; its files are the step's output
    <kind>/<key>/.manifest    size, SHA-256 and file status of each file, checked at each use of the entry
    <kind>/.staging/<key>/    an unfinished output; it survives its maker, so that the next one can resume
    <kind>/.locks/<key>       locked by the process that makes the entry; the kernel frees it on any death
    <kind>/.locks/<key>.use   shared by those who use the files of an entry that others may exchange (store.exchanging)
    .in-use                   shared by the processes that use entries, so that none is pruned under them

Nothing here knows what an output contains.
"""

import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO, Any
from uuid import uuid4

from rammerge.errors import InputError, RammergeError
from rammerge.system.atomic import sync, write_json, write_text
from rammerge.system.home import home
from rammerge.system.locks import locked
from rammerge.system.status import file_status

IN_USE = ".in-use"
MANIFEST = ".manifest"


@dataclass(frozen=True)
class Entry:
    """A verified entry of the store.

    Attributes:
        path: directory of the output. Do not change its content.
        digest: SHA-256 over the sorted names, sizes and SHA-256 of the files. Equal outputs have equal digests.
        files: SHA-256 by path relative to `path`.
        reused: whether the entry existed before.
        seconds: how long the attempt took that finished it, if that was noted: of several entries that were made
            together, an equal share. It is no part of the digest.
    """

    path: Path
    digest: str
    files: Mapping[str, str]
    reused: bool
    seconds: float | None


def key_of(step: str, version: int | tuple[int, ...], inputs: Mapping[str, Any]) -> str:
    """Return the key, 40 hex digits, of the output of `step` (algorithm `version`) for `inputs`, which are JSON."""
    content = json.dumps([step, version, inputs], sort_keys=True, allow_nan=False, separators=(",", ":"))
    return hashlib.sha256(content.encode()).hexdigest()[:40]


def find(kind: str, key: str) -> Entry | None:
    """Return the entry if it exists and every file still has its original content, else None.

    A file is hashed again only if its status (size, times, inode) differs from the manifest. So finding a large model
    reads nothing. Making a hard link to a file changes its status, and costs one more hash.
    """
    path = root() / kind / key
    try:
        hold(root())
        manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        files: dict[str, dict[str, Any]] = manifest["files"]
        if sorted(files) != [name for name, _ in _files(path)]:
            return None
        touched = {name: known for name, known in files.items() if file_status((path / name).stat()) != known["status"]}
        for name, known in touched.items():
            status = file_status((path / name).stat())
            if status[0] != known["size"] or _sha256(path / name) != known["sha256"]:
                return None
            known["status"] = status
        if touched:
            write_json(path / MANIFEST, manifest)
        with suppress(OSError):  # a store that cannot be written to is not pruned either
            os.utime(path / MANIFEST)  # when it was used last, for `prune`
        return _entry(path, manifest, reused=True)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def materialise(
    kind: str, key: str, build: Callable[[Path], None], *, valid: Callable[[Entry], bool] = lambda _: True
) -> Entry:
    """Return the entry of `key`. If it is missing, damaged or not `valid`, call `build(directory)` to write it.

    For what happens with errors and with other processes see `materialise_together`.
    """

    def build_one(directories: Mapping[str, Path]) -> Iterator[str]:
        build(directories[key])
        yield key

    return materialise_together(kind, [key], build_one, valid=valid)[key]


def materialise_together(
    kind: str,
    keys: Iterable[str],
    build: Callable[[Mapping[str, Path]], Iterable[str]],
    *,
    valid: Callable[[Entry], bool] = lambda _: True,
) -> dict[str, Entry]:
    """Return the entries of `keys`. If some are missing, damaged or not `valid`, call `build` to write these.

    `build` gets a directory for each, and yields each key as soon as its directory is complete; it is an entry at once.

    One process at a time builds a key; the others wait and then share its entry. Every attempt at a key gets the same
    directory, with the files of an attempt that was killed, so `build` can resume.

    An error of `build` is passed on. After an interrupt, an OSError or a RammergeError that is not an InputError (such
    as a full disk) the directories are kept for the next attempt; after any other error they are removed.
    """
    root().mkdir(parents=True, exist_ok=True)
    hold(root())
    with ExitStack() as locks:
        ordered = sorted(set(keys))  # so that no two processes wait for one another
        for key in ordered:
            locks.enter_context(locked(lock_path(kind, key)))
        entries = {key: entry for key in ordered if (entry := find(kind, key)) is not None and valid(entry)}
        missing = {key: _begin(kind, key) for key in ordered if key not in entries}
        began = time.monotonic()
        try:
            for key in build(missing) if missing else ():
                entries[key] = _finish(kind, key, began, len(missing))
        except BaseException as error:
            if isinstance(error, InputError) or not isinstance(error, RammergeError | OSError | KeyboardInterrupt):
                for key in missing.keys() - entries.keys():
                    remove(missing[key])
            raise
        return entries


def _begin(kind: str, key: str) -> Path:
    """Return the directory in which an entry is made, with what an earlier attempt left there."""
    remove(root() / kind / key)
    staging = staging_path(kind, key)
    staging.mkdir(parents=True, exist_ok=True)
    return staging


def _finish(kind: str, key: str, began: float, together: int) -> Entry:
    """Make an entry of the directory in which it was made, since the time `began`, as one of `together`."""
    final, staging = root() / kind / key, staging_path(kind, key)
    manifest = write_manifest(staging, round((time.monotonic() - began) / together, 3))
    staging.rename(final)
    sync(final.parent)
    return _entry(final, manifest, reused=False)


def write_manifest(directory: Path, seconds: float | None) -> dict[str, Any]:
    """Write, and return, the manifest of a finished output that took `seconds` to make."""
    files = {
        name: {"size": path.stat().st_size, "sha256": _sha256(path), "status": file_status(path.stat())}
        for name, path in _files(directory)
    }
    manifest = {"files": files, "seconds": seconds}
    write_json(directory / MANIFEST, manifest)
    return manifest


def drop(kind: str, key: str) -> None:
    """Remove the entry of `key`, and what is unfinished of it. Call this only if nobody else uses the entry."""
    with locked(lock_path(kind, key)):
        remove(root() / kind / key)
        remove(staging_path(kind, key))


def is_new() -> bool:
    """Return whether nothing was ever kept in the store."""
    return not root().exists()


def generation(kind: str, key: str, *, valid: bool) -> str:
    """Return a name for the present entry of `key`. It becomes a new one, never used before, unless `valid`.

    A cache that remembers results by key, such as Prefect's, makes this name a part of its own key. So it forgets a
    result whose entry was lost or damaged, also where the whole kind was deleted.
    """
    with locked(lock_path(kind, f"{key}.generation")):
        kept = root() / kind / ".generations" / key
        if valid:
            with suppress(OSError, ValueError):
                return kept.read_text(encoding="ascii")
            return ""
        fresh = uuid4().hex[:16]
        write_text(kept, fresh)
        return fresh


def root() -> Path:
    """Return the directory of the store."""
    return home() / "store"


@lru_cache(maxsize=1)
def hold(store: Path) -> IO[bytes]:
    """Share the lock on a store with its other users, for as long as this process uses it.

    Raises:
        OSError: the store does not exist.
    """
    file = (store / IN_USE).open("a+b")
    fcntl.flock(file, fcntl.LOCK_SH)
    return file


def lock_path(kind: str, key: str) -> Path:
    """Return the lock file of whoever makes an entry."""
    return root() / kind / ".locks" / key


def staging_path(kind: str, key: str) -> Path:
    """Return the directory in which an entry is made."""
    return root() / kind / ".staging" / key


def _files(directory: Path) -> list[tuple[str, Path]]:
    found = [(path.relative_to(directory).as_posix(), path) for path in directory.rglob("*") if not path.is_dir()]
    return sorted((name, path) for name, path in found if name != MANIFEST)


def _entry(path: Path, manifest: Mapping[str, Any], *, reused: bool) -> Entry:
    known = sorted(manifest["files"].items())
    lines = [f"{name} {file['size']} {file['sha256']}\n" for name, file in known]
    digest = hashlib.sha256("".join(lines).encode()).hexdigest()
    return Entry(path, digest, {name: str(file["sha256"]) for name, file in known}, reused, manifest.get("seconds"))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def remove(directory: Path) -> None:
    """Remove a directory of the store, if it is there."""
    # Rename first: a half-removed entry must never be found under its key.
    if directory.exists():
        trash = directory.parent / f".removed-{directory.name}-{os.getpid()}"
        directory.rename(trash)
        shutil.rmtree(trash, ignore_errors=True)
