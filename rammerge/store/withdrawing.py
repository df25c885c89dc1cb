"""Pruning a shared store: what no machine has used for long goes, and what is too much for the place.

Others bring and put entries meanwhile, and no lock is held by all of them. So an entry with large files goes in two
steps. Its manifest goes first, and nobody finds it any more. Its files go a day later or more, when whoever had begun
to bring them is done. If it is put there again in between, it is whole again, and stays.
"""

import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from uuid import uuid4

from rich.filesize import decimal

from rammerge.errors import RammergeError
from rammerge.storage import Place, PlaceError, Stored, open_place, try_place
from rammerge.store.groups import Group, groups_of
from rammerge.store.noting import Uses, read_uses
from rammerge.store.parcels import DamagedError, Parcel
from rammerge.store.sharing import KINDS

_DAY = 24 * 60 * 60.0
# What is younger stays, whatever the place may take: somebody may still put it there, or bring it.
_GRACE = _DAY
_TRIAL = ".trial/"
# Says since when an entry has no manifest. Pruning counts the day from it.
_WITHDRAWN = "withdrawn"


@dataclass(frozen=True)
class Withdrawn:
    """What was removed from a shared store, or would be.

    Attributes:
        entries: how many entries nobody finds any more, by kind.
        freed: bytes that the place gets back now.
        later: bytes that it gets back when it is pruned after a day or more.
        kept: bytes of what stays.
    """

    entries: dict[str, int]
    freed: int
    later: int
    kept: int

    @property
    def sentence(self) -> str:
        """What came of it in one line."""
        count = sum(self.entries.values())
        later = f"; {decimal(self.later)} more go when it is pruned in a day or later" if self.later else ""
        return (
            f"removed {count} shared entr{'y' if count == 1 else 'ies'}, and {decimal(self.freed)}{later}; "
            f"{decimal(self.kept)} are kept"
        )


def prune_shared(url: str, *, unused_days: float | None, size: int | None = None, dry_run: bool = False) -> Withdrawn:
    """Remove from the shared store `url` what no home used for a time, and then what was used longest ago.

    What the last run of any recipe of any home leads to stays, and so does what is younger than a day.

    Args:
        url: a directory, or a bucket and a prefix.
        unused_days: days since the last use after which an entry goes; None keeps all.
        size: bytes that the entries there may have; None for any.
        dry_run: only say what would be removed.

    Raises:
        InputError: there is no such place, or it cannot be written to.
        RammergeError: it failed meanwhile; what was removed is removed whole.
    """
    try_place(url)
    place = open_place(url)
    try:
        return _Pruning(place, _now(place), dry_run).run(unused_days, size)
    except PlaceError as error:
        raise RammergeError(f"{error}; prune again") from error


def _now(place: Place) -> float:
    """Return the time as the place's own clock has it, by which it dates its objects."""
    name = f"{_TRIAL}{uuid4().hex}"
    place.create(name, b"")
    try:
        return next((stored.modified for stored in place.list(_TRIAL) if stored.name == name), time.time())
    finally:
        place.delete(name)


@dataclass(frozen=True)
class _Pruning:
    """One pruning of a place, at the time `now`."""

    place: Place
    now: float
    dry_run: bool

    def run(self, unused_days: float | None, size: int | None) -> Withdrawn:
        """Remove what is to go; see `prune_shared`."""
        uses = read_uses(self.place, self.now)
        groups = [group for kind in sorted(KINDS) for group in groups_of(self.place.list(f"{kind}/"), uses)]
        whole = [group for group in groups if group.manifest]
        halves = [group for group in groups if not group.manifest and self._is_old(group.newest)]
        total = sum(group.size for group in groups)
        taken = total - sum(half.size for half in halves)
        chosen = list(self._chosen([group for group in whole if group.name not in uses.kept], taken, unused_days, size))
        strays = self._strays(whole, {group.name for group in chosen})
        freed = sum(self._remove(half) for half in halves) + sum(self._delete(stray) for stray in strays)
        gone = {group: now for group in chosen if (now := self._withdraw(group)) is not None}
        self._sweep(uses)
        entries = {kind: len(list(same)) for kind, same in groupby(sorted(group.kind for group in gone))}
        freed += sum(gone.values())
        later = sum(group.size for group in gone) - sum(gone.values())
        return Withdrawn(entries, freed, later, total - freed - later)

    def _is_old(self, at: float) -> bool:
        return at < self.now - _GRACE

    def _chosen(self, groups: list[Group], total: int, unused_days: float | None, size: int | None) -> Iterator[Group]:
        oldest = float("-inf") if unused_days is None else self.now - unused_days * _DAY
        for group in sorted(groups, key=lambda group: (group.used, group.name)):
            if self._is_old(group.used) and (group.used < oldest or (size is not None and total > size)):
                total -= group.size
                yield group

    def _strays(self, whole: Iterable[Group], but: Collection[str]) -> Iterator[Stored]:
        """Yield old objects of entries that stay whose manifests do not name them, such as those of a second writer."""
        for group in whole:
            old = [stored for stored in group.objects if stored != group.manifest and self._is_old(stored.modified)]
            if old and group.name not in but:
                named = self._named(group.name)
                yield from (stored for stored in old if named and stored.name not in named)

    def _named(self, entry: str) -> set[str]:
        """Return the names of the objects of an entry; none if its manifest is damaged, as its next user finds."""
        try:
            parcel = Parcel.read(self.place.read(f"{entry}/manifest.json") or b"")
        except DamagedError:
            return set()
        return {f"{entry}/manifest.json", *(f"{entry}/{item.sha256}" for item in parcel.files)}

    def _withdraw(self, group: Group) -> int | None:
        """Let nobody find an entry any more.

        Returns:
            The bytes that the place gets back now; None if others removed the entry, or put it there again.
        """
        manifest = group.manifest
        if manifest is None or manifest not in self._present(group):
            return None
        if not self.dry_run:
            if len(group.objects) > 1:
                self.place.delete(f"{group.name}/{_WITHDRAWN}")  # of an earlier time
                self.place.create(f"{group.name}/{_WITHDRAWN}", f"{self.now:.0f}\n".encode())
            self.place.delete(manifest.name)
        return manifest.size

    def _remove(self, half: Group) -> int:
        """Remove what is left of an entry that nobody finds, unless somebody puts it there again; return its bytes."""
        present = self._present(half)
        if any(not self._is_old(stored.modified) for stored in present):
            return 0
        return sum(self._delete(stored) for stored in present)

    def _delete(self, stored: Stored) -> int:
        if not self.dry_run:
            self.place.delete(stored.name)
        return stored.size

    def _present(self, group: Group) -> Sequence[Stored]:
        """Return the objects that an entry has by now. A download is one object, and is not asked for."""
        one = group.objects[0].name == group.name
        return group.objects if one or self.dry_run else list(self.place.list(f"{group.name}/"))

    def _sweep(self, uses: Uses) -> None:
        """Remove what is no entry and nobody needs: notes of forgotten homes, trials, what killed writers left."""
        for stored in [*uses.forgotten, *self.place.list(_TRIAL)]:
            if self._is_old(stored.modified):
                self._delete(stored)
        if not self.dry_run:
            for kind in sorted(KINDS):
                self.place.sweep(f"{kind}/", self.now - _GRACE)
