"""Files and directories in memory."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from evaluation.suites.bundled.bfcl_multi_turn.worlds.told import Told


@dataclass
class File:
    """A file."""

    name: str
    content: str = ""


@dataclass
class Directory:
    """A directory; two with the same content are equal wherever they lie."""

    name: str
    parent: "Directory | None" = field(default=None, compare=False, repr=False)
    contents: "dict[str, Entry]" = field(default_factory=dict)


Entry = File | Directory


def read_directory(name: str, parent: Directory | None, contents: Told) -> Directory:
    """Return the directory that a first state describes."""
    made = Directory(name, parent)
    for key, entry in contents.items():
        if entry["type"] == "directory":
            made.contents[key] = read_directory(key, made, entry["contents"])
        else:
            made.contents[key] = File(key, entry["content"])
    return made


def add(place: Directory, name: str, entry: Entry) -> None:
    """Put what an entry holds into a directory, under a name."""
    if isinstance(entry, File):
        place.contents[name] = File(name, entry.content)
    else:
        place.contents[name] = Directory(name, place, entry.contents)


def below(directory: Directory, path: str) -> Iterator[tuple[str, str]]:
    """Yield path and name of everything in a directory, and in those in it."""
    for name, entry in directory.contents.items():
        yield f"{path}/{name}", name
        if isinstance(entry, Directory):
            yield from below(entry, f"{path}/{name}")


def size_of(entry: Entry) -> int:
    """Return the bytes of a file, or of all files in a directory."""
    if isinstance(entry, File):
        return len(entry.content.encode())
    return sum(map(size_of, entry.contents.values()))
