"""Contract: the state of a directory changes with every file that a model may be read from, and with nothing else."""

import os
from pathlib import Path
from typing import Any

import pytest

from rammerge.system import status
from rammerge.system.status import directory_state


@pytest.mark.parametrize("place", ["a.bin", "actor/a.bin", "experiment/global_step_3/policy/weights/a.bin"])
def test_a_file_that_is_written_again_changes_the_state(tmp_path: Path, place: str) -> None:
    file = tmp_path / place
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"one")
    before = directory_state(tmp_path)
    assert directory_state(tmp_path) == before
    before_it = file.stat()
    file.write_bytes(b"two")
    os.utime(file, ns=(before_it.st_atime_ns, before_it.st_mtime_ns + 1))
    assert directory_state(tmp_path) != before


def test_links_are_followed_to_files_and_not_into_directories(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "up").symlink_to(tmp_path)
    (tmp_path / "model" / "broken").symlink_to(tmp_path / "nowhere")
    blob = tmp_path / "blob"
    blob.write_bytes(b"one")
    (tmp_path / "model" / "weights").symlink_to(blob)
    before = directory_state(tmp_path / "model")
    blob.write_bytes(b"other")
    assert directory_state(tmp_path / "model") != before


@pytest.mark.parametrize("gone", ["file", "directory"])
def test_what_a_trainer_removes_meanwhile_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gone: str
) -> None:
    (tmp_path / "kept").touch()
    alone = directory_state(tmp_path)
    place = tmp_path / gone
    if gone == "file":
        place.touch()
    else:
        place.mkdir()
    scan = os.scandir

    def remove_and_scan(path: Path) -> Any:
        if path == place:
            place.rmdir()
        return scan(path)

    def remove(entry: os.DirEntry[str]) -> bool:
        if entry.name == "file":
            place.unlink()
        return False

    monkeypatch.setattr(os, "scandir", remove_and_scan)
    monkeypatch.setattr(status, "_is_broken", remove)
    assert (directory_state(tmp_path) == alone) is (gone == "file")


def test_what_is_no_directory_has_no_state(tmp_path: Path) -> None:
    assert directory_state(Path("a" * 300)) is None
    (tmp_path / "file").touch()
    assert directory_state(tmp_path / "file") is None
    assert directory_state(tmp_path / "nowhere") is None
