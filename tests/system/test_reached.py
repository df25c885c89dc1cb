"""Contract: the files that a module's code comes from are its own and those of all that it imports, however it does.

The digest of code changes when one of these files changes. It does not depend on where they are, nor on rammerge's own.
"""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from rammerge.system.reached import code_digest, reached_files

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


@pytest.fixture(autouse=True)
def own_modules_are_forgotten() -> Iterator[None]:
    yield
    _forget()


def _forget() -> None:
    for name in [name for name in sys.modules if name.startswith("own_")]:
        del sys.modules[name]


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_imports_are_followed_but_not_into_installed_packages(directory: Path) -> None:
    found = {path.relative_to(directory).as_posix() for path in reached_files(["own_package.start"])}
    assert found == FILES.keys() - NOT_REACHED


def test_an_installed_package_is_followed_where_it_begins() -> None:
    import pydantic

    found = reached_files(["pydantic.fields"])
    root = Path(pydantic.__file__).parent
    assert root / "fields.py" in found
    assert all(path.is_relative_to(root) for path in found)


def _digest(directory: Path, *, own: str = "1", factor: str = "2") -> str:
    directory.mkdir()
    (directory / "own_factors.py").write_text(f"FACTOR = {factor}\n")
    (directory / "own_rules.py").write_text(
        f"import math\nfrom own_factors import FACTOR\ndef best(x):\n    return x * FACTOR + {own}\n"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(directory))
        digest = code_digest(importlib.import_module("own_rules").best)
    _forget()
    return digest


def test_the_digest_follows_the_code_and_imported_constants_but_not_their_place(tmp_path: Path) -> None:
    first = _digest(tmp_path / "a")
    assert _digest(tmp_path / "b") == first
    assert _digest(tmp_path / "c", own="3") != first
    assert _digest(tmp_path / "d", factor="3") != first


def test_rammerge_s_own_files_are_no_part_of_a_digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_gate.py").write_text("from evaluation.judging.gates import Gate\nclass Strict(Gate):\n    pass\n")
    (tmp_path / "own_bare.py").write_text((tmp_path / "own_gate.py").read_text())
    monkeypatch.syspath_prepend(str(tmp_path))
    found = reached_files(["own_gate"], without=("rammerge", "evaluation"))
    assert found == {tmp_path / "own_gate.py"}
    digests = {code_digest(importlib.import_module(name).Strict) for name in ("own_gate", "own_bare")}
    assert len(digests) == 1


def test_code_without_a_file_never_counts_as_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_rules.py").write_text("def best(x):\n    return x\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    kept = importlib.import_module("own_rules").best
    namespace: dict[str, Any] = {"__name__": "own_notebook"}
    sys.modules["own_notebook"] = ModuleType("own_notebook")
    exec("def best(x):\n    return x", namespace)
    assert code_digest(kept) == code_digest(kept)
    assert code_digest(namespace["best"]) != code_digest(namespace["best"])
    assert code_digest(kept, namespace["best"]) != code_digest(kept, namespace["best"])
