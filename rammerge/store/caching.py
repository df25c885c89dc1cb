"""The local store as a cache of the shared one: copies of what is there go when they take too much of the disk."""

from collections.abc import Collection
from pathlib import Path

from rammerge.store.carrying import has
from rammerge.store.entries import IN_USE, MANIFEST, byte_of, remove, root
from rammerge.store.pruning import found_entries
from rammerge.store.sharing import KINDS
from rammerge.system.locks import try_byte


def trim(size: int, *, keep: Collection[Path] = ()) -> int:
    """Drop entries that the shared store has, those used longest ago first, until the store here fits into `size`.

    What a process uses stays, and so do the entries of the files `keep`. What was dropped is brought here again when it
    is needed.

    Args:
        size: bytes that the store here may have.
        keep: files and directories whose entries stay.

    Returns:
        The bytes of what was dropped.
    """
    if not root().is_dir():
        return 0
    found = sorted(found_entries(), key=lambda entry: (entry.used, entry.path))
    excess = sum(entry.size for entry in found) - size
    kept, dropped = {entry for path in keep for entry in path.parents}, 0
    for entry in found:
        if dropped >= excess:
            break
        is_entry = entry.kind in KINDS and entry.size > 0 and (entry.path / MANIFEST).is_file()
        if is_entry and entry.path not in kept and has(entry.kind, entry.path.name) and _drop(entry.kind, entry.path):
            dropped += entry.size
    return dropped


def _drop(kind: str, path: Path) -> bool:
    """Remove an entry unless a process uses it; return whether it is gone."""
    try:
        with (root() / IN_USE).open("a+b") as file, try_byte(file, byte_of(kind, path.name)):
            remove(path)
    except OSError:
        return False
    return True
