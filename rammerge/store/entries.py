"""Entries of the store, each under the digest of everything that determines it.

Layout below `home()/store`. A whole kind, or any single entry, may be deleted at any time:

    <kind>/<key>/             one entry, complete as soon as it is visible; its files are the step's output
    <kind>/<key>/.manifest    size, SHA-256 and file status of each file, checked at each use of the entry
    <kind>/.staging/<key>/    an unfinished output; it survives its maker, so that the next one can resume
    <kind>/.locks/<key>       locked by the process that makes the entry; the kernel frees it on any death
    <kind>/.locks/<key>.use   shared by those who use the files of an entry that others may exchange (store.exchanging)
    .in-use                   shared by the processes that use entries, so that none is pruned under them; a byte of it
                              by those that use one entry, so that its copy here is not dropped (store.caching)

Nothing here knows what an output contains.
"""

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO, Any
from uuid import uuid4

from rammerge.system.atomic import write_json, write_text
from rammerge.system.home import home
from rammerge.system.locks import locked, share_byte
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
        use(kind, key)
        manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        files: dict[str, dict[str, Any]] = manifest["files"]
        if sorted(files) != [name for name, _ in _files(path)]:
            return None
        touched = {name: known for name, known in files.items() if file_status((path / name).stat()) != known["status"]}
        for name, known in touched.items():
            status = file_status((path / name).stat())
            if status[0] != known["size"] or sha256_of(path / name) != known["sha256"]:
                return None
            known["status"] = status
        if touched:
            write_json(path / MANIFEST, manifest)
        with suppress(OSError):  # a store that cannot be written to is not pruned either
            os.utime(path / MANIFEST)  # when it was used last, for `prune`
        return entry_of(path, manifest, reused=True)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def write_manifest(directory: Path, seconds: float | None, **notes: Any) -> dict[str, Any]:
    """Write, and return, the manifest of a finished output that took `seconds` to make, with `notes` in it."""
    files = dict(_files(directory))
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as threads:
        digests = dict(zip(files, threads.map(sha256_of, files.values()), strict=True))
    manifest = known_manifest(directory, digests, seconds) | notes
    write_json(directory / MANIFEST, manifest)
    return manifest


def known_manifest(directory: Path, digests: Mapping[str, str], seconds: float | None) -> dict[str, Any]:
    """Return the manifest of an output with files of these SHA-256, by name."""
    statuses = {name: (directory / name).stat() for name in digests}
    files = {
        name: {"size": status.st_size, "sha256": digests[name], "status": file_status(status)}
        for name, status in statuses.items()
    }
    return {"files": files, "seconds": seconds}


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


def use(kind: str, key: str) -> None:
    """Keep others from dropping an entry, for as long as this process uses the store.

    Raises:
        OSError: the store does not exist.
    """
    file = hold(root())
    with suppress(OSError):  # a file system without such locks: nobody gets one to drop the entry, either
        share_byte(file, byte_of(kind, key))


def byte_of(kind: str, key: str) -> int:
    """Return the byte of the file `.in-use` that stands for an entry."""
    return int.from_bytes(hashlib.sha256(f"{kind}/{key}".encode()).digest()[:7])


def lock_path(kind: str, key: str) -> Path:
    """Return the lock file of whoever makes an entry."""
    return root() / kind / ".locks" / key


def staging_path(kind: str, key: str) -> Path:
    """Return the directory in which an entry is made."""
    return root() / kind / ".staging" / key


def _files(directory: Path) -> list[tuple[str, Path]]:
    found = [(path.relative_to(directory).as_posix(), path) for path in directory.rglob("*") if not path.is_dir()]
    return sorted((name, path) for name, path in found if name != MANIFEST)


def entry_of(path: Path, manifest: Mapping[str, Any], *, reused: bool) -> Entry:
    """Return the entry in the directory `path`, which has this manifest."""
    known = sorted(manifest["files"].items())
    lines = [f"{name} {file['size']} {file['sha256']}\n" for name, file in known]
    digest = hashlib.sha256("".join(lines).encode()).hexdigest()
    return Entry(path, digest, {name: str(file["sha256"]) for name, file in known}, reused, manifest.get("seconds"))


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def remove(directory: Path) -> None:
    """Remove a directory of the store, if it is there."""
    # Rename first: a half-removed entry must never be found under its key.
    if directory.exists():
        trash = directory.parent / f".removed-{directory.name}-{os.getpid()}"
        directory.rename(trash)
        shutil.rmtree(trash, ignore_errors=True)
