"""Exchanging an entry for a different form of the same output, such as a smaller one, while others use the store."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rammerge.errors import RammergeError
from rammerge.store.entries import MANIFEST, lock_path, remove, root, staging_path, write_manifest
from rammerge.system.atomic import sync
from rammerge.system.exchanging import exchange as exchange_names
from rammerge.system.locks import locked


@contextmanager
def using(kind: str, key: str) -> Iterator[None]:
    """Keep an entry in its present form while the context lasts."""
    with locked(_use_path(kind, key), shared=True):
        yield


def exchange(kind: str, key: str, build: Callable[[Path, Path], None], *, wait: bool) -> None:
    """Exchange an entry for what `build(entry, directory)` writes into an empty directory.

    At any moment one of the two forms is complete under the entry's name. `find` tells which files it has at present.

    Args:
        kind: the entry's kind.
        key: the entry's key.
        build: makes the new form. It may be called for an entry that has this form by now, and then leaves the
            directory empty.
        wait: whether to wait for those who use the entry.

    Raises:
        BlockingIOError: without `wait`, somebody uses the entry.
        RammergeError: there is no such entry.
    """
    entry, staging = root() / kind / key, staging_path(kind, f"{key}-exchange")
    with locked(_use_path(kind, key), wait=wait), locked(lock_path(kind, key)):
        if not entry.is_dir():
            raise RammergeError(f"{entry} is gone; run again")
        remove(staging)
        staging.mkdir(parents=True)
        try:
            build(entry, staging)
            if any(staging.iterdir()):
                seconds = json.loads((entry / MANIFEST).read_text(encoding="utf-8")).get("seconds")
                write_manifest(staging, seconds, exchanged=True)  # this form stays here
                exchange_names(staging, entry)
                sync(entry.parent)
        finally:
            remove(staging)


def drop_unused(kind: str, key: str) -> bool:
    """Remove an entry unless somebody uses it; return whether it is gone."""
    try:
        with locked(_use_path(kind, key), wait=False), locked(lock_path(kind, key)):
            remove(root() / kind / key)
    except BlockingIOError:
        return False
    return True


def _use_path(kind: str, key: str) -> Path:
    return lock_path(kind, f"{key}.use")
