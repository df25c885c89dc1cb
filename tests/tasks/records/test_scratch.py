"""Contract of scratch directories: none is removed under the process that uses it, and none outlives its process."""

from pathlib import Path

from tasks.records.scratch import scratch


def test_two_at_the_same_time_do_not_remove_each_other(tmp_path: Path) -> None:
    with scratch(tmp_path) as one, scratch(tmp_path) as other:
        assert one != other and one.is_dir() and other.is_dir()
    assert not list(tmp_path.glob(".*"))


def test_what_a_killed_process_has_left_goes(place: Path, tmp_path: Path) -> None:
    left = tmp_path / ".model-left"
    left.mkdir()
    (left / "weights").touch()
    note = place / "mlflow" / "scratch" / "left"
    note.parent.mkdir(parents=True, exist_ok=True)
    note.write_text(str(left))
    with scratch(tmp_path / "elsewhere"):
        assert not left.exists() and not note.exists()
