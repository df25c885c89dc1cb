"""Contract of backups: what is restored is what was there, file by file, or the restore is refused and nothing is made.

tests/servers has the whole way round: a run of a restored home finds everything done.
"""

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from flows.backup import back_up, restore
from flows.backup.records import move_records
from rammerge import store
from rammerge.errors import InputError
from rammerge.system.home import home

KEY = "0" * 40


@pytest.fixture
def made(rammerge_home: Path) -> Path:
    """Fill the home with an entry whose file a registered version shares, records, and what is not to be copied."""

    def build(out: Path) -> None:
        (out / "weights").write_bytes(b"w" * 100_000)

    store.materialise("merge", KEY, build)
    version = rammerge_home / "mlflow" / "artifacts" / "1" / "model" / "weights"
    version.parent.mkdir(parents=True)
    version.hardlink_to(rammerge_home / "store" / "merge" / KEY / "weights")
    (rammerge_home / "runs").mkdir()
    (rammerge_home / "runs" / "tiny.json").write_text(json.dumps({"model": str(version.parent)}))
    with closing(sqlite3.connect(rammerge_home / "mlflow" / "mlflow.db")) as database, database:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("CREATE TABLE runs (artifact_uri VARCHAR(200), n INTEGER)")
        database.execute("INSERT INTO runs VALUES (?, 1)", (version.parent.as_uri(),))
    (rammerge_home / "mlflow" / "scratch").mkdir()
    (rammerge_home / "mlflow" / "scratch" / "7").write_text(f"{rammerge_home}/mlflow/artifacts/1/.model-7")
    for left_out in ("kernels/a.so", "digests/b", "logs/c.log", "store/merge/.staging/x/y", "mlflow/aliases.lock"):
        path = rammerge_home / left_out
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return rammerge_home


def files(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_the_same_files_come_back(made: Path, tmp_path: Path) -> None:
    kept = back_up(tmp_path / "kept")
    copied = files(tmp_path / "kept" / "home")
    assert sorted(copied) == [
        "mlflow/artifacts/1/model/weights",
        "mlflow/mlflow.db",
        "mlflow/scratch/7",
        "runs/tiny.json",
        f"store/merge/{KEY}/.manifest",
        f"store/merge/{KEY}/weights",
    ]
    assert kept == (6, sum(map(len, copied.values())), made)
    shutil.rmtree(made)
    assert restore(tmp_path / "kept") == kept and files(made) == copied
    entry = made / "store" / "merge" / KEY
    assert (entry / "weights").stat().st_nlink == 2, "registered weights are no second copy"
    assert store.find("merge", KEY) is not None


@pytest.mark.usefixtures("made")
def test_records_name_files_of_the_home_that_they_are_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    back_up(tmp_path / "kept")
    monkeypatch.setenv("RAMMERGE_HOME", str(tmp_path / "elsewhere"))
    restore(tmp_path / "kept")
    version = home() / "mlflow" / "artifacts" / "1" / "model"
    assert (home() / "mlflow" / "scratch" / "7").read_text() == f"{home()}/mlflow/artifacts/1/.model-7"
    assert json.loads((home() / "runs" / "tiny.json").read_text())["model"] == str(version)
    with closing(sqlite3.connect(home() / "mlflow" / "mlflow.db")) as database:
        assert database.execute("SELECT * FROM runs").fetchall() == [(version.as_uri(), 1)]


@pytest.mark.parametrize("new", ["/srv/data/home", "/data/home/below"])
def test_only_paths_of_the_home_are_moved_and_once(new: str, tmp_path: Path) -> None:
    old = "/data/home"  # a part of the new path, and of paths that are not of the home
    told = ["{0}/a", "file://{0}/a", "sqlite:///{0}/b", "see {0}/c, and file://{0}/d", "s3://bucket{0}/e", "/old{0}/f"]
    (tmp_path / "mlflow").mkdir()
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "tiny.json").write_text(json.dumps([each.format(old) for each in told]))
    with closing(sqlite3.connect(tmp_path / "mlflow" / "mlflow.db")) as database, database:
        database.execute("CREATE TABLE told (words TEXT, n INTEGER)")
        database.executemany("INSERT INTO told VALUES (?, ?)", [(each.format(old), n) for n, each in enumerate(told)])
    move_records(tmp_path, old, new)
    moved = [each.format(new) for each in told[:4]] + [each.format(old) for each in told[4:]]
    assert json.loads((tmp_path / "runs" / "tiny.json").read_text()) == moved
    with closing(sqlite3.connect(tmp_path / "mlflow" / "mlflow.db")) as database:
        assert [words for (words,) in database.execute("SELECT words FROM told ORDER BY n")] == moved


def test_a_database_that_is_written_to_is_copied_whole(made: Path, tmp_path: Path) -> None:
    with closing(sqlite3.connect(made / "mlflow" / "mlflow.db", isolation_level=None)) as writing:
        writing.execute("INSERT INTO runs VALUES ('finished', 2)")  # still in the file beside the database
        writing.execute("BEGIN IMMEDIATE")
        writing.execute("INSERT INTO runs VALUES ('begun', 3)")
        back_up(tmp_path / "kept")
    with closing(sqlite3.connect(tmp_path / "kept" / "home" / "mlflow" / "mlflow.db")) as copy:
        assert [n for (n,) in copy.execute("SELECT n FROM runs")] == [1, 2]


def test_damage_is_found_and_nothing_is_restored(made: Path, tmp_path: Path) -> None:
    back_up(tmp_path / "kept")
    shutil.rmtree(made)
    weights = tmp_path / "kept" / "home" / "store" / "merge" / KEY / "weights"
    intact = weights.read_bytes()
    weights.write_bytes(b"x" + intact[1:])
    with pytest.raises(InputError, match=r"/weights in .* is not what was backed up"):
        restore(tmp_path / "kept")
    weights.write_bytes(intact)
    weights.unlink()
    with pytest.raises(InputError, match=r"lacks store/merge/.*/weights"):
        restore(tmp_path / "kept")
    (tmp_path / "kept" / "backup.json").unlink()
    with pytest.raises(InputError, match="no complete backup"):
        restore(tmp_path / "kept")
    assert not made.exists() and not list(made.parent.glob(f".{made.name}*"))


@pytest.mark.usefixtures("made")
def test_nothing_is_written_over(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    back_up(tmp_path / "kept")
    with pytest.raises(InputError, match="is not empty; name a new directory"):
        back_up(tmp_path / "kept")
    with pytest.raises(InputError, match="is not empty; set RAMMERGE_HOME to a new directory"):
        restore(tmp_path / "kept")
    with pytest.raises(InputError, match="lies in what is copied"):
        back_up(home() / "kept")


def test_nothing_is_written_elsewhere(made: Path, tmp_path: Path) -> None:
    back_up(tmp_path / "kept")
    shutil.rmtree(made)
    content = json.loads((tmp_path / "kept" / "backup.json").read_text())
    content["files"]["../outside"] = content["files"].pop("runs/tiny.json")
    (tmp_path / "kept" / "backup.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"names a file outside of the home, \.\./outside"):
        restore(tmp_path / "kept")
