"""Contract of the wheel: the four packages whole, the examples beside them, and nothing else.

Installed far from the checkout, it is the same program: tests/zoo/test_demo.py runs the demo from it.
"""

import zipfile
from email.parser import HeaderParser
from pathlib import Path

import pytest

import rammerge
from tests.fixtures.installed import CHECKOUT, Installation

PACKAGES = ("evaluation", "flows", "rammerge", "tasks")


@pytest.fixture(scope="module")
def names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


@pytest.fixture(scope="module")
def metadata(wheel: Path) -> "dict[str, list[str]]":
    with zipfile.ZipFile(wheel) as archive:
        (file,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        message = HeaderParser().parsestr(archive.read(file).decode())
    return {key: message.get_all(key, []) for key in message}


def files_below(directory: str) -> set[str]:
    """Return the files below a directory of the checkout, without what Python leaves there by itself."""
    found = (path for path in (CHECKOUT / directory).rglob("*") if path.is_file())
    return {path.relative_to(CHECKOUT).as_posix() for path in found if "__pycache__" not in path.parts}


def test_it_has_the_four_packages_the_examples_and_nothing_else(names: set[str]) -> None:
    version = rammerge.__version__
    code = {file for package in PACKAGES for file in files_below(package)}
    data = {f"rammerge-{version}.data/data/share/rammerge/{file}" for file in files_below("examples")}
    about = {name for name in names if name.startswith(f"rammerge-{version}.dist-info/")}
    assert names - about == code | data


def test_what_is_no_code_is_in_it(names: set[str]) -> None:
    assert {f"{package}/py.typed" for package in PACKAGES} <= names
    assert "rammerge/engine/compiling/tiles.cpp" in names
    for suite in ("zoo_code", "zoo_memory", "zoo_tool"):
        for file in ("suite.yaml", "validation.jsonl", "test.jsonl"):
            assert f"evaluation/suites/bundled/{suite}/{file}" in names
    for model in ("base", "tool", "code", "memory"):
        assert any(name.endswith(f"/examples/zoo/checkpoints/{model}/model.safetensors") for name in names)


def test_its_metadata_says_license_authors_and_python(names: set[str], metadata: dict[str, list[str]]) -> None:
    assert metadata["License-Expression"] == ["Apache-2.0"]
    assert metadata["License-File"] == ["LICENSE"]
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)
    assert metadata["Author"] == ["the rammerge developers"]
    assert metadata["Requires-Python"] == [">=3.11"]
    assert metadata["Keywords"]
    assert "Typing :: Typed" in metadata["Classifier"]
    assert not {"Home-page", "Project-URL"} & metadata.keys()


def test_an_installed_program_says_its_version_and_finds_its_demo(installed: Installation, tmp_path: Path) -> None:
    for command in ([installed.rammerge], [installed.python, "-m", "rammerge"]):
        done = installed.run(*command, "--version", cwd=tmp_path)
        assert (done.returncode, done.stdout) == (0, f"rammerge {rammerge.__version__}\n"), done.stderr
    where = installed.run(
        installed.python, "-c", "import rammerge, flows; print(rammerge.__file__, flows.__file__)", cwd=tmp_path
    )
    assert all(Path(file).is_relative_to(installed.root) for file in where.stdout.split()), where
