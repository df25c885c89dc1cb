"""Contract: the files that a module's code comes from are its own and those of all that it imports, however it does."""

import sys
from pathlib import Path

import pytest

from rammerge.system.reached import reached_files

FILES = {
    "own_package/__init__.py": "",
    "own_package/start.py": """
from __future__ import annotations
import json, pydantic
from typing import TYPE_CHECKING
from . import beside
from .below.deep import LIMIT
import plain_neighbour
if TYPE_CHECKING:
    from own_package.types_only import Never
def late():
    try:
        from own_package import lazily
    except ImportError:
        import own_package.otherwise
""",
    "own_package/beside.py": "",
    "own_package/below/__init__.py": "",
    "own_package/below/deep.py": "from .. import start\nLIMIT = 1\n",
    "own_package/lazily.py": "",
    "own_package/otherwise.py": "",
    "own_package/types_only.py": "",
    "own_package/unrelated.py": "",
    "plain_neighbour.py": "",
}
# A package is run when a module in it is imported, but gives nothing to who imports only the module.
NOT_REACHED = {"own_package/types_only.py", "own_package/unrelated.py", "own_package/below/__init__.py"}


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_imports_are_followed_but_not_into_installed_packages(directory: Path) -> None:
    try:
        found = {path.relative_to(directory).as_posix() for path in reached_files(["own_package.start"])}
    finally:
        for name in [name for name in sys.modules if name.startswith("own_package")]:
            del sys.modules[name]
    assert found == FILES.keys() - NOT_REACHED


def test_an_installed_package_is_followed_where_it_begins() -> None:
    import pydantic

    found = reached_files(["pydantic.fields"])
    root = Path(pydantic.__file__).parent
    assert root / "fields.py" in found
    assert all(path.is_relative_to(root) for path in found)
