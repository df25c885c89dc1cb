"""Removing what no run has used for long, or what is too much for the disk. Whatever is removed can be made again."""

import fcntl
import shutil
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from rich.filesize import decimal

from rammerge.errors import RammergeError
from rammerge.store.entries import IN_USE, MANIFEST, remove, root
from rammerge.system.remembered import forget_stale

_DAY = 24 * 60 * 60
# What a killed process left of a removal, or of an output that nobody has taken up.
_TRASH, _STAGING, _GENERATIONS, _LOCKS = ".removed-", ".staging", ".generations", ".locks"


class InUseError(RammergeError):
    """A process uses the store, of which then nothing is removed."""


@dataclass(frozen=True)
class Pruned:
    """What was removed from the store, or would be.

    Attributes:
        entries: their number, by kind.
        freed: bytes that the disk gets back, by kind. A file that a registered version shares frees nothing.
        kept: bytes of what stays.
    """

    entries: dict[str, int]
    freed: dict[str, int]
    kept: int

    @property
    def sentence(self) -> str:
        """What came of it in one line."""
        count = sum(self.entries.values())
        freed = decimal(sum(self.freed.values()))
        return f"removed {count} entr{'y' if count == 1 else 'ies'} of {freed}; {decimal(self.kept)} are kept"


@dataclass(frozen=True)
class Found:
    """An entry, an unfinished output, or what is left of a removed one: since when nobody used it, and its bytes."""

    kind: str
    path: Path
    used: float
    size: int


def prune(
    *, unused_days: float | None, size: int | None = None, keep: Collection[Path] = (), dry_run: bool = False
) -> Pruned:
    """Remove entries that were not used for a time, and then those used longest ago until the rest fits into a size.

    SHA-256 that are remembered of files that are gone or have changed are forgotten.

    Args:
        unused_days: days since the last use after which an entry goes; None keeps all.
        size: bytes that the store may have; None for any.
        keep: files and directories whose entries stay.
        dry_run: only say what would be removed.

    Raises:
        InUseError: a process uses the store.
    """
    if not dry_run:
        forget_stale()
    if not root().is_dir():
        return Pruned({}, {}, 0)
    with alone():
        found = sorted(found_entries(), key=lambda entry: (entry.used, entry.path))
        total = sum(entry.size for entry in found)
        kept = {entry for path in keep for entry in path.parents}
        free = [entry for entry in found if entry.path not in kept]
        chosen = list(_chosen(free, total, unused_days, size))
        if not dry_run:
            _remove_all(chosen)
            _remove_locks()
    entries: dict[str, int] = {}
    freed: dict[str, int] = {}
    for entry in chosen:
        entries[entry.kind] = entries.get(entry.kind, 0) + 1
        freed[entry.kind] = freed.get(entry.kind, 0) + entry.size
    return Pruned(entries, freed, total - sum(freed.values()))


@contextmanager
def alone() -> Iterator[None]:
    """Keep other processes from beginning to use the store.

    Raises:
        InUseError: a process uses it already.
    """
    root().mkdir(parents=True, exist_ok=True)
    with (root() / IN_USE).open("a+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InUseError(f"a process is using the store {root()}; prune when it has ended") from error
        yield


def _chosen(found: list[Found], total: int, unused_days: float | None, size: int | None) -> Iterator[Found]:
    oldest = float("-inf") if unused_days is None else time.time() - unused_days * _DAY
    for entry in found:
        if entry.path.name.startswith(_TRASH) or entry.used < oldest or _too_much(entry, total, size):
            total -= entry.size
            yield entry


def _too_much(entry: Found, total: int, size: int | None) -> bool:
    return size is not None and total > size and entry.size > 0


def found_entries() -> Iterator[Found]:
    """Yield each entry, each unfinished output, and what is left of removed ones."""
    for kind in sorted(path for path in root().iterdir() if path.is_dir()):
        for path in (*kind.iterdir(), *(kind / _STAGING).glob("*")):
            named = path.name.startswith(_TRASH) or not path.name.startswith(".")
            if named and path.is_dir() and (found := _found(kind.name, path)):
                yield found


def _found(kind: str, path: Path) -> Found | None:
    """Return what is at `path`, or None if it is gone: others make and remove entries while copies are dropped."""
    try:
        return Found(kind, path, _used(path), _size(path))
    except FileNotFoundError:
        return None


def _used(path: Path) -> float:
    manifest = path / MANIFEST
    if manifest.is_file():
        return manifest.stat().st_mtime
    return max(file.stat().st_mtime for file in (path, *path.rglob("*")) if not file.is_symlink())


def _size(path: Path) -> int:
    files = (file.lstat() for file in path.rglob("*") if not file.is_dir())
    return sum(status.st_size for status in files if status.st_nlink == 1)


def _remove_all(chosen: list[Found]) -> None:
    for entry in chosen:
        if entry.path.name.startswith(_TRASH):
            shutil.rmtree(entry.path, ignore_errors=True)
        else:
            remove(entry.path)
        with suppress(FileNotFoundError):
            (root() / entry.kind / _GENERATIONS / entry.path.name).unlink()


def _remove_locks() -> None:
    """Remove the lock files of entries that are gone. Nobody holds one, because nobody uses the store."""
    for file in root().glob(f"*/{_LOCKS}/*"):
        kind, key = file.parent.parent, file.name.partition(".")[0]
        if not (kind / key).exists() and not (kind / _STAGING / key).exists():
            file.unlink()
