"""Contract: a file is replaced whole, an exchange is undone if it fails, and neither changes the process meanwhile."""

import os
from pathlib import Path
from typing import NoReturn

import pytest

from rammerge.system import libc
from rammerge.system.atomic import write_text
from rammerge.system.exchanging import exchange


def test_a_written_file_has_the_mode_that_the_process_gives_to_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = os.umask(0o027)
    try:
        with monkeypatch.context() as patch:
            patch.setattr(os, "umask", _never)  # it is the whole process's: another thread may make a file meanwhile
            write_text(tmp_path / "file", "content")
    finally:
        os.umask(before)
    assert (tmp_path / "file").read_text() == "content"
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]


def test_an_exchange_by_renames_is_undone_if_the_second_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a file system cannot exchange names. The directory that everyone knows is there afterwards."""
    monkeypatch.setattr(libc, "call", _unsupported)
    (tmp_path / "known").mkdir()
    with pytest.raises(FileNotFoundError):
        exchange(tmp_path / "missing", tmp_path / "known")
    assert list(tmp_path.iterdir()) == [tmp_path / "known"]


def _never(_: int) -> NoReturn:
    raise AssertionError("the umask was changed")


def _unsupported(*_: object) -> NoReturn:
    raise OSError(38, "not implemented")
