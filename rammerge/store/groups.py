"""The objects of a shared store, entry by entry."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby

from rammerge.storage import Stored
from rammerge.store.noting import Uses
from rammerge.store.sharing import DOWNLOADS


@dataclass(frozen=True)
class Group:
    """The objects of an entry of the shared store, or a download.

    Attributes:
        name: `<kind>/<key>`.
        objects: all of them.
        used: when a machine used it last, or put it there.
    """

    name: str
    objects: tuple[Stored, ...]
    used: float

    @property
    def kind(self) -> str:
        """The kind of the entry."""
        return self.name.partition("/")[0]

    @cached_property
    def size(self) -> int:
        """Bytes of all objects."""
        return sum(stored.size for stored in self.objects)

    @property
    def newest(self) -> float:
        """When the last object was put there."""
        return max(stored.modified for stored in self.objects)

    @property
    def manifest(self) -> Stored | None:
        """The object by which others find the entry: its manifest, or the download itself."""
        wanted = self.name if self.is_download else f"{self.name}/manifest.json"
        return next((stored for stored in self.objects if stored.name == wanted), None)

    @property
    def is_download(self) -> bool:
        """Whether it is one object with a name of its own. An upload that was cut off has a name with a dot."""
        return self.name.startswith(f"{DOWNLOADS}/") and not self.name.startswith(f"{DOWNLOADS}/.")


def groups_of(objects: Iterable[Stored], uses: Uses) -> Iterator[Group]:
    """Yield the entries of a kind, or the downloads, of which the place has an object."""
    for name, same in groupby(sorted(objects, key=_group_of), key=_group_of):
        group = tuple(same)
        put = max(stored.modified for stored in group)
        yield Group(name, group, max(put, uses.used.get(name, 0.0)))


def _group_of(stored: Stored) -> str:
    return "/".join(stored.name.split("/")[:2])
