"""The tables of docs/design.md that say who may import whom, and what breaks them."""

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from tests.architecture.imports import Import

_CODE = re.compile(r"`([\w.]+)`")


def read_table(page: Path, header: str) -> dict[str, set[str]]:
    """Return first cell -> the names in the last cell, in order, of the table in `page` with that header row."""
    lines = page.read_text(encoding="utf-8").splitlines()
    found: dict[str, set[str]] = {}
    for row in lines[lines.index(header) + 2 :]:
        if not row.startswith("|"):
            break
        first, *_, last = row.strip("|").split("|")
        found.update({name: set(_CODE.findall(last)) for name in _CODE.findall(first)})
    return found


def room_of(module: str, rooms: Iterable[str]) -> str | None:
    """Return the room that a module is in: the nearest row of the table, one with rows below it being its __init__."""
    if module in rooms:
        return module
    parents = (module.rsplit(".", count)[0] for count in range(1, module.count(".") + 1))
    room = next((parent for parent in parents if parent in rooms), None)
    return None if room is None or any(other.startswith(f"{room}.") for other in rooms) else room


def homeless(modules: Iterable[str], rooms: Iterable[str]) -> list[str]:
    """Return the modules that no row of the table covers."""
    return [module for module in modules if room_of(module, rooms) is None]


def arrows(imports: Iterable[Import], rooms: Iterable[str]) -> dict[tuple[str, str], Import]:
    """Return (room, imported room) -> an import that makes it so, for every two rooms of which one knows the other."""
    found: dict[tuple[str, str], Import] = {}
    for each in imports:
        one, other = room_of(each.module, rooms), room_of(each.target, rooms)
        if one and other and one != other:
            found.setdefault((one, other), each)
    return found


def forbidden(imports: Iterable[Import], table: Mapping[str, set[str]]) -> list[str]:
    """Return the imports that the table does not allow."""
    return [str(each) for (one, other), each in arrows(imports, table).items() if other not in table[one]]


def unused(imports: Iterable[Import], table: Mapping[str, set[str]]) -> list[str]:
    """Return the arrows that the table allows and nothing needs."""
    needed = arrows(imports, table)
    allowed = ((room, other) for room, others in table.items() for other in sorted(others))
    return [f"{room} -> {other}" for room, other in allowed if (room, other) not in needed]


def upward(table: Mapping[str, set[str]]) -> list[str]:
    """Return the arrows that lead to a row further down or to none: without them there is no circle of rooms."""
    rows = list(table)
    return [
        f"{room} -> {other}"
        for number, room in enumerate(rows)
        for other in sorted(table[room])
        if other not in rows[:number]
    ]


def strangers(imports: Iterable[Import], libraries: Mapping[str, set[str]]) -> Iterator[str]:
    """Yield the imports of a library in a room that the table does not name for it."""
    for each in imports:
        rooms = libraries.get(each.target.partition(".")[0])
        if rooms is not None and not any(f"{each.module}.".startswith(f"{room}.") for room in rooms):
            yield str(each)
