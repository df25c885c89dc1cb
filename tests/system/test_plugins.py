"""Objects of the user's own are loaded only from trusted modules and from installed packages.

Contract: `module:name` loads an object of a module that is trusted, from the import path or from a given directory. All
that is wrong with it is one sentence.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from rammerge.errors import InputError
from rammerge.system.plugins import entry_points, load_object


@pytest.fixture(autouse=True)
def own_modules_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    for name in [name for name in sys.modules if name.startswith("own_")]:
        del sys.modules[name]


def _load(reference: str, directory: Path) -> object:
    return load_object(reference, what="method", trusted=[reference.split(":")[0]], directory=directory)


def test_an_object_beside_the_recipe_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "own_rules.py").write_text("class Rules:\n    best = 7\n")
    assert _load("own_rules:Rules.best", tmp_path) == 7


def test_a_trusted_package_covers_its_modules(tmp_path: Path) -> None:
    package = tmp_path / "own_package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "rules.py").write_text("best = 7\n")
    assert load_object("own_package.rules:best", what="method", trusted=["own_package"], directory=tmp_path) == 7


def test_code_that_is_not_trusted_does_not_run(tmp_path: Path) -> None:
    (tmp_path / "own_rules.py").write_text(f"from pathlib import Path\nPath({str(tmp_path / 'ran')!r}).touch()\n")
    with pytest.raises(InputError, match=r"'own_rules', which is not trusted; .*`trust: \[own_rules\]`"):
        load_object("own_rules:best", what="method", trusted=["own_rule", "other"], directory=tmp_path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("own_rules:", "method 'own_rules:' is not of the form module:name"),
        ("own rules:best", "is not of the form module:name"),
        ("own_absent:best", r"there is no module 'own_absent'; install it, or put own_absent.py into .*"),
        ("own_rules:bets", r"'own_rules' has no 'bets' \(did you mean 'best'\?\)"),
        ("own_rules:best.bit_lenght", r"'own_rules' has no 'bit_lenght' \(did you mean 'bit_length'\?\)"),
        ("own_broken:best", r"importing 'own_broken' failed \(ZeroDivisionError: .*\); correct the module"),
        ("own_needy:best", r"importing 'own_needy' failed \(No module named 'absent_dependency'\)"),
    ],
)
def test_what_is_wrong_with_a_reference_is_one_sentence(tmp_path: Path, reference: str, message: str) -> None:
    (tmp_path / "own_rules.py").write_text("best = 7\n")
    (tmp_path / "own_broken.py").write_text("1 / 0\n")
    (tmp_path / "own_needy.py").write_text("import absent_dependency\n")
    with pytest.raises(InputError, match=message) as caught:
        _load(reference, tmp_path)
    assert "\n" not in str(caught.value)


def test_a_namesake_is_never_taken_for_the_module_beside_the_recipe(tmp_path: Path) -> None:
    (tmp_path / "json.py").write_text("best = 7\n")
    with pytest.raises(InputError, match=r"json\.py is hidden by 'json' of .*; give the module another name"):
        _load("json:best", tmp_path)
    for recipe in ("first", "second"):
        (tmp_path / recipe).mkdir()
        (tmp_path / recipe / "own_rules.py").write_text(f"best = '{recipe}'\n")
    assert _load("own_rules:best", tmp_path / "first") == "first"
    with pytest.raises(InputError, match="hidden by 'own_rules'"):
        _load("own_rules:best", tmp_path / "second")


def _distribution(directory: Path, name: str, points: str) -> None:
    info = directory / f"{name.replace('-', '_')}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[rammerge.test]\n{points}\n")


def test_installed_packages_offer_objects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_installed.py").write_text("best = 7\n")
    _distribution(tmp_path, "own-package", "best = own_installed:best\nbroken = own_absent:best")
    monkeypatch.syspath_prepend(tmp_path)
    offered = entry_points("rammerge.test", what="method")
    assert list(offered) == ["best", "broken"]
    assert offered["best"]() == 7
    with pytest.raises(InputError, match=r"'broken' of the package own-package cannot be loaded \(ModuleNotFoundError"):
        offered["broken"]()
    _distribution(tmp_path, "own-rival", "best = own_rival:best")
    with pytest.raises(InputError, match="two packages offer a method 'best'"):
        entry_points("rammerge.test", what="method")
