"""Contract: whether an output can be written is known before any work, and asking leaves nothing behind."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rammerge.errors import InputError
from rammerge.publishing.room import check_output


def outcome(out: Path, **options: Any) -> str:
    with pytest.raises(InputError) as refusal:
        check_output(out, **{"force": False, "needed_bytes": 10, **options})
    return str(refusal.value)


def test_a_new_output_leaves_nothing_behind(tmp_path: Path) -> None:
    check_output(tmp_path / "a" / "b", force=False, needed_bytes=10)
    assert list(tmp_path.iterdir()) == []


def test_an_existing_output_needs_force(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    assert "exists" in outcome(out)
    assert "--force" in outcome(out)
    check_output(out, force=True, needed_bytes=10)
    (tmp_path / "file").write_text("x")
    assert "not a directory" in outcome(tmp_path / "file", force=True)
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    assert "exists" in outcome(tmp_path / "link")


def test_an_input_is_never_replaced(tiny_model: Callable[[str], Path], tmp_path: Path) -> None:
    base = tiny_model("llama")
    (tmp_path / "alias").symlink_to(base)
    for out in (base, base.parent, tmp_path / "alias", Path.home(), Path.cwd()):
        assert "must not be replaced" in outcome(out, force=True, inputs=[base])


def test_an_unwritable_output_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("x")
    assert "cannot be written" in outcome(tmp_path / "file" / "out")
    assert "cannot be written" in outcome(Path("/proc/out"))
    assert "too long" in outcome(tmp_path / ("x" * 300))

    def read_only(**_: Any) -> Any:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr("tempfile.TemporaryFile", read_only)
    assert "Read-only file system" in outcome(tmp_path / "out")


def test_a_full_disk_is_refused(tmp_path: Path) -> None:
    assert "8.0 PB" in outcome(tmp_path / "out", needed_bytes=8 * 10**15)
    assert list(tmp_path.iterdir()) == []
