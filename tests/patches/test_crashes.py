"""Contract: packing or unpacking that dies at any moment, or finds the disk full, leaves nothing that looks finished.

The same call again makes the same bytes.
"""

import errno
import os
import random
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

import rammerge
from rammerge.errors import RammergeError
from rammerge.publishing.staging import locked_staging, staging_directory
from tests.fixtures.kills import in_child, note_disk_calls
from tests.patches.families import contents, odd_family

Work = Callable[[Path], object]


@pytest.fixture(scope="module")
def works(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Work]:
    """Return what packs an agent, and what unpacks the patch."""
    root = tmp_path_factory.mktemp("models")
    base, agent = odd_family(root)
    rammerge.pack(base, agent, root / "patch")
    return {
        "pack": partial(rammerge.pack, base, agent),
        "unpack": partial(rammerge.unpack, base, root / "patch"),
    }


@pytest.mark.parametrize("name", ["pack", "unpack"])
def test_kill_9_at_any_moment(works: dict[str, Work], tmp_path: Path, name: str) -> None:
    calls: list[None] = []
    with pytest.MonkeyPatch.context() as patch:
        note_disk_calls(patch, lambda: calls.append(None))
        works[name](tmp_path / "expected")
    expected = contents(tmp_path / "expected")
    assert len(calls) > 5
    chances = random.Random(0)
    for moment in chances.sample(range(len(calls)), 5):
        out = tmp_path / f"out{moment}"
        work = partial(works[name], out)
        in_child(work, moment)
        if not out.exists():  # else it died after the rename that publishes
            assert in_child(work, None)
            assert not staging_directory(out).exists()
        assert contents(out) == expected


@pytest.mark.parametrize("name", ["pack", "unpack"])
def test_full_disk(works: dict[str, Work], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(RammergeError, match=r"no space left in .*; make room and run again$"):
            works[name](tmp_path / "out")
    assert not (tmp_path / "out").exists()
    works[name](tmp_path / "out")


@pytest.mark.parametrize("name", ["pack", "unpack"])
def test_one_process_at_a_time(works: dict[str, Work], tmp_path: Path, name: str) -> None:
    with locked_staging(tmp_path / "out"), pytest.raises(RammergeError, match=r"another process is writing to .*out;"):
        works[name](tmp_path / "out")
