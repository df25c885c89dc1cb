"""Contract of the layout: the arrows between rooms are those of docs/design.md, and no modules import in a circle.

The tables there are what is checked; to move an arrow, change its row, and let the diff show the decision.
"""

from graphlib import TopologicalSorter

import pytest

from tests.architecture.imports import Import, find_imports, find_modules
from tests.architecture.table import forbidden, homeless, read_table, strangers, unused, upward
from tests.fixtures.installed import CHECKOUT

PAGE = CHECKOUT / "docs" / "design.md"
MODULES = find_modules(CHECKOUT, ("rammerge", "evaluation", "tasks", "flows"))


@pytest.fixture(scope="module")
def imports() -> list[Import]:
    return find_imports(MODULES)


@pytest.fixture(scope="module")
def rooms() -> dict[str, set[str]]:
    return read_table(PAGE, "| room | subject | may import |")


def test_every_module_has_a_room(rooms: dict[str, set[str]]) -> None:
    assert homeless(MODULES, rooms) == []
    assert [room for room in rooms if room not in MODULES] == []


def test_no_module_imports_a_room_that_its_own_may_not(rooms: dict[str, set[str]], imports: list[Import]) -> None:
    assert "\n".join(forbidden(imports, rooms)) == ""


def test_the_table_allows_no_arrow_that_nothing_needs(rooms: dict[str, set[str]], imports: list[Import]) -> None:
    assert "\n".join(unused(imports, rooms)) == ""


def test_rooms_know_only_rooms_above_them_in_the_table(rooms: dict[str, set[str]]) -> None:
    assert upward(rooms) == []


def test_no_circle_of_modules(imports: list[Import]) -> None:
    graph: dict[str, set[str]] = {name: set() for name in MODULES}
    for each in imports:
        if each.target in MODULES:
            graph[each.module].add(each.target)
    TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle


def test_libraries_stay_in_their_rooms(imports: list[Import]) -> None:
    libraries = read_table(PAGE, "| library | imported by |")
    assert list(strangers(imports, libraries)) == []
    known = {each.target.partition(".")[0] for each in imports}
    assert [library for library in libraries if library not in known] == []
