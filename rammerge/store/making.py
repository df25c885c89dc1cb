"""Making entries: once, however many ask for them, on this machine or on others with the same shared store."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from rammerge.errors import InputError, RammergeError
from rammerge.store.carrying import offer, receive, take
from rammerge.store.entries import (
    Entry,
    entry_of,
    find,
    hold,
    lock_path,
    remove,
    root,
    staging_path,
    use,
    write_manifest,
)
from rammerge.system.atomic import sync
from rammerge.system.locks import locked


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

    What the shared store has is brought here, and what is made here is put there.

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
        entries = _found(kind, ordered, valid, locks)
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


def _found(kind: str, keys: Iterable[str], valid: Callable[[Entry], bool], locks: ExitStack) -> dict[str, Entry]:
    """Return those entries that are `valid`, here or in the shared store; the caller holds their locks."""
    found = {}
    for key in keys:
        entry = find(kind, key)
        if entry is not None and valid(entry):
            offer(kind, key)  # what an earlier run could not put there
        else:
            entry = take(kind, key, valid, locks)
        if entry is not None:
            found[key] = entry
    return found


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
    use(kind, key)
    staging.rename(final)
    sync(final.parent)
    # Two machines may have measured different seconds. All go on with the same ones, so that later keys are the same.
    theirs = receive(kind, key) if offer(kind, key) else None
    return replace(theirs, reused=False) if theirs else entry_of(final, manifest, reused=False)
