"""Contract: a function of a suite is the one that its file has now, whatever Python has kept of an earlier file."""

import os
import sys
from pathlib import Path

import pytest

from evaluation.suites import FunctionReference


def test_an_edit_within_a_second_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    file = tmp_path / "scoring.py"
    for said in ("one", "two"):
        file.write_text(f"def score(): return '{said}'\n")
        os.utime(file, (1_000_000_000, 1_000_000_000))
        assert FunctionReference(tmp_path, "scoring", "score").load()() == said
    assert list(tmp_path.iterdir()) == [file], "nothing is left beside what the user wrote"
