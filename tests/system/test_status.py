"""Contract: the state of a directory changes with every file that a model may be read from, and with nothing else."""

import os
from pathlib import Path

import pytest

from rammerge.system.status import directory_state


@pytest.mark.parametrize("place", ["a.bin", "actor/a.bin", "experiment/global_step_3/policy/weights/a.bin"])
def test_a_file_that_is_written_again_changes_the_state(tmp_path: Path, place: str) -> None:
    file = tmp_path / place
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"one")
    before = directory_state(tmp_path)
    assert directory_state(tmp_path) == before
    status = file.stat()
    file.write_bytes(b"two")
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
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


def test_what_is_no_directory_has_no_state(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert directory_state(tmp_path / "file") is None
    assert directory_state(tmp_path / "nowhere") is None
