"""Contract of the checker itself: it finds every kind of import, and every way to break the table.

Small trees of packages are planted; `ground` is below `middle`, which is below `top`.
"""

from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.architecture.imports import Import, find_imports, find_modules
from tests.architecture.table import forbidden, homeless, read_table, room_of, strangers, unused, upward

TABLE = """\
Some words.

| room | subject | may import |
|---|---|---|
| `ground` | files | |
| `middle` | itself, `top` said in passing | `ground` |
| `middle.inner` | | `ground`, `middle` |
| `top` | | `middle.inner` |

| library | imported by |
|---|---|
| `prefect` | `middle.inner`, `top` |
"""


def plant(root: Path, files: Mapping[str, str]) -> list[Import]:
    """Write a tree of the packages, with `files` in it, and return what it imports."""
    empty = dict.fromkeys(("ground", "middle", "middle/inner", "top"), "")
    for name, text in {**{f"{directory}/__init__.py": text for directory, text in empty.items()}, **files}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return find_imports(find_modules(root, ("ground", "middle", "top")))


@pytest.fixture
def table(tmp_path: Path) -> dict[str, set[str]]:
    (tmp_path / "page.md").write_text(TABLE)
    return read_table(tmp_path / "page.md", "| room | subject | may import |")


@pytest.mark.parametrize(
    "source",
    [
        "import top",
        "import top.roof as roof",
        "from top import roof",
        "from top.roof import tile",
        "from top.roof import *",
        "def work() -> None:\n    from top import roof",
        "class Late:\n    import top",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from top.roof import Tile",
        "try:\n    import top\nexcept ImportError:\n    top = None",
        "import importlib\nimportlib.import_module('top')",
        "from importlib import import_module\nimport_module('top.roof')",
        "__import__('top')",
        "import sys\ncommand = [sys.executable, '-m', 'top']",
        "command = ('-m', 'top.roof', '--fast')",
        "LAZY = {'tile': 'top.roof'}",
        "ENTRY = 'top.roof:tile'",
    ],
)
def test_an_import_that_the_table_does_not_allow_is_found(
    source: str, table: dict[str, set[str]], tmp_path: Path
) -> None:
    imports = plant(tmp_path, {"top/roof.py": "tile = 1\n", "ground/cellar.py": source})
    (found,) = forbidden(imports, table)
    assert found.startswith("ground.cellar, line ")
    assert found.endswith(("imports top", "imports top.roof"))


def test_a_relative_import_is_resolved(table: dict[str, set[str]], tmp_path: Path) -> None:
    files = {"middle/__init__.py": "from .inner import stairs", "middle/inner/stairs.py": "from ...top import x"}
    imports = plant(tmp_path, files)
    assert {(each.module, each.target) for each in imports} == {
        ("middle", "middle.inner.stairs"),
        ("middle.inner.stairs", "top"),
    }
    assert len(forbidden(imports, table)) == 2


def test_allowed_arrows_and_words_are_no_violation(table: dict[str, set[str]], tmp_path: Path) -> None:
    files = {
        "ground/cellar.py": '"""Nothing of top.roof is here."""\nname = "top"\nimport json\nfrom ground import shelf\n',
        "ground/shelf.py": "",
        "middle/__init__.py": "from ground.cellar import name",
        "middle/inner/stairs.py": "import middle, ground",
        "top/roof.py": "from middle.inner import stairs",
    }
    imports = plant(tmp_path, files)
    assert forbidden(imports, table) == []
    assert unused(imports, table) == []


def test_an_arrow_that_nothing_needs_is_found(table: dict[str, set[str]], tmp_path: Path) -> None:
    imports = plant(tmp_path, {"middle/__init__.py": "import ground", "top/roof.py": "import middle.inner"})
    assert unused(imports, table) == ["middle.inner -> ground", "middle.inner -> middle"]


def test_a_module_without_a_row_is_found(table: dict[str, set[str]]) -> None:
    assert room_of("middle", table) == "middle"
    assert room_of("middle.inner.stairs", table) == "middle.inner"
    # A row with rows below it stands for its own file: what is new beside them has to be put somewhere.
    assert homeless(["ground.cellar", "middle", "middle.attic", "attic"], table) == ["middle.attic", "attic"]


def test_an_arrow_that_leads_down_the_table_is_found(table: dict[str, set[str]]) -> None:
    assert upward(table) == []
    assert upward({**table, "ground": {"top", "attic"}}) == ["ground -> attic", "ground -> top"]


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import prefect", True),
        ("def work() -> None:\n    from prefect.client import get_client", True),
        ("command = ['-m', 'prefect', 'server']", True),
        ("import prefectionist", False),
        ("name = 'prefect'", False),
    ],
)
def test_a_library_out_of_its_rooms_is_found(source: str, found: bool, tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text(TABLE)
    libraries = read_table(tmp_path / "page.md", "| library | imported by |")
    imports = plant(tmp_path, {"ground/cellar.py": source, "top/roof.py": "import prefect", "middle/__init__.py": ""})
    assert [each.partition(",")[0] for each in strangers(imports, libraries)] == ["ground.cellar"] * found
