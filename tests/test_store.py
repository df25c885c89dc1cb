"""Contract: an entry of the store is complete from the moment it is visible, and is made once however many ask for it.

It is never served lost or damaged, and the next maker resumes what a killed one left.
"""

import os
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from rammerge import store
from rammerge.store import entries
from rammerge.system.locks import locked
from tests.fixtures.waiting import let_the_clock_tick, no_hanging, wait_until


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RAMMERGE_HOME", str(tmp_path))
    return tmp_path


def write_two(directory: Path) -> None:
    (directory / "inner").mkdir(exist_ok=True)
    (directory / "inner" / "a.txt").write_text("alpha")
    (directory / "b.txt").write_text("beta")


def never(_: Path) -> None:
    raise AssertionError("built again")


def test_a_store_is_new_until_something_was_kept() -> None:
    assert store.is_new()
    store.materialise("merge", "key", write_two)
    assert not store.is_new()


def test_key_depends_on_each_part_and_not_on_order() -> None:
    key = store.key_of("merge", 1, {"a": 1, "b": [2, 3]})
    assert key == store.key_of("merge", 1, {"b": [2, 3], "a": 1})
    others = [
        ("extract", 1, {"a": 1, "b": [2, 3]}),
        ("merge", 2, {"a": 1, "b": [2, 3]}),
        ("merge", 1, {"a": 1, "b": [3, 2]}),
    ]
    assert len({key, *(store.key_of(*other) for other in others)}) == 4
    with pytest.raises(ValueError, match="JSON"):
        store.key_of("merge", 1, {"a": float("nan")})


def test_second_request_reuses_the_entry() -> None:
    made = store.materialise("kind", "k", write_two)
    again = store.materialise("kind", "k", never)
    assert (made.reused, again.reused) == (False, True)
    assert made.digest == again.digest and made.files == again.files
    assert set(made.files) == {"inner/a.txt", "b.txt"}
    assert (again.path / "inner" / "a.txt").read_text() == "alpha"


def test_a_dropped_entry_is_gone_with_what_a_killed_maker_left_of_it(own_home: Path) -> None:
    def fail(directory: Path) -> None:
        write_two(directory)
        raise KeyboardInterrupt

    store.materialise("kind", "a", write_two)
    with pytest.raises(KeyboardInterrupt):
        store.materialise("kind", "b", fail)
    for key in ("a", "b", "never"):
        store.drop("kind", key)
    assert store.find("kind", "a") is None
    assert not list((own_home / "store" / "kind").rglob("*.txt"))
    assert not store.materialise("kind", "a", write_two).reused


def test_equal_output_under_another_key_has_the_same_digest() -> None:
    assert store.materialise("kind", "k1", write_two).digest == store.materialise("kind", "k2", write_two).digest


def overwrite_keeping_times(path: Path) -> None:
    status = path.stat()
    let_the_clock_tick(path)
    path.write_text("BETA")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.parametrize(
    "damage",
    [
        lambda entry: (entry / "b.txt").unlink(),
        lambda entry: (entry / "b.txt").write_text("betaa"),
        lambda entry: overwrite_keeping_times(entry / "b.txt"),
        lambda entry: (entry / "extra.txt").write_text("x"),
        lambda entry: (entry / ".manifest").write_text("{"),
        lambda entry: (entry / ".manifest").unlink(),
        lambda entry: (entry / ".manifest").write_text('{"files": ["b.txt", "inner/a.txt"]}'),
    ],
    ids=["lost", "changed", "changed-with-old-times", "added", "manifest-torn", "manifest-lost", "manifest-of-names"],
)
def test_damaged_entry_is_noticed_and_made_again(damage: Callable[[Path], object]) -> None:
    entry = store.materialise("kind", "k", write_two)
    damage(entry.path)
    assert store.find("kind", "k") is None
    again = store.materialise("kind", "k", write_two)
    assert not again.reused and again.digest == entry.digest
    assert store.find("kind", "k") is not None


def test_untouched_file_is_not_hashed_again_and_a_touched_one_once(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = store.materialise("kind", "k", write_two)
    hashed: list[Path] = []
    real = entries.sha256_of

    def note(path: Path) -> str:
        hashed.append(path)
        return real(path)

    monkeypatch.setattr(entries, "sha256_of", note)
    assert store.find("kind", "k") and hashed == []
    let_the_clock_tick(entry.path / "b.txt")
    os.link(entry.path / "b.txt", entry.path.parent / "link")  # as registering a model does
    assert store.find("kind", "k") and hashed == [entry.path / "b.txt"]
    assert store.find("kind", "k") and len(hashed) == 1


def test_failed_build_leaves_nothing_and_a_full_disk_can_resume() -> None:
    def fails(directory: Path) -> None:
        write_two(directory)
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        store.materialise("kind", "k", fails)
    assert store.find("kind", "k") is None

    def full(directory: Path) -> None:
        assert list(directory.iterdir()) == []
        (directory / "shard-1").write_text("done")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        store.materialise("kind", "k", full)

    def resumes(directory: Path) -> None:
        assert (directory / "shard-1").read_text() == "done"

    assert set(store.materialise("kind", "k", resumes).files) == {"shard-1"}


def test_many_threads_make_an_entry_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    asked: list[Path] = []

    def note(path: Path) -> AbstractContextManager[None]:
        asked.append(path)
        return locked(path)

    def build(directory: Path) -> None:
        made.append(1)
        wait_until(lambda: len(asked) == 8, "the others to ask for the entry that is being made")
        write_two(directory)

    monkeypatch.setattr("rammerge.store.making.locked", note)
    with ThreadPoolExecutor(8) as pool:
        entries = list(pool.map(lambda _: store.materialise("kind", "k", build), range(8)))
    assert len(made) == 1
    assert len({entry.digest for entry in entries}) == 1
    assert sum(not entry.reused for entry in entries) == 1


def test_killed_maker_frees_the_lock_and_leaves_its_work() -> None:
    maker = textwrap.dedent(
        """
        import sys
        from rammerge import store
        def build(directory):
            (directory / "part").write_text("kept")
            print("building", flush=True)
            sys.stdin.read()
        store.materialise("kind", "k", build)
        """
    )
    command = [sys.executable, "-c", maker]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "building\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert store.find("kind", "k") is None

    def build(directory: Path) -> None:
        assert (directory / "part").read_text() == "kept"
        (directory / "rest").write_text("new")

    with no_hanging():
        assert set(store.materialise("kind", "k", build).files) == {"part", "rest"}


def test_an_entry_has_a_new_generation_after_each_loss() -> None:
    first = store.generation("kind", "k", valid=False)
    assert first and store.generation("kind", "k", valid=True) == first
    second = store.generation("kind", "k", valid=False)
    shutil.rmtree(entries.root() / "kind")
    third = store.generation("kind", "k", valid=False)
    assert len({first, second, third}) == 3
    assert store.generation("kind", "other", valid=True) == store.generation("kind", "other", valid=True)


def test_of_several_that_are_made_together_those_that_are_finished_are_kept() -> None:
    asked: list[list[str]] = []

    def build(directories: Mapping[str, Path], last: str | None = None) -> Iterator[str]:
        asked.append(list(directories))
        for key, directory in directories.items():
            (directory / "content").write_text(key)
            if key == last:
                raise KeyboardInterrupt
            yield key

    store.materialise("kind", "b", write_two)
    with pytest.raises(KeyboardInterrupt):
        store.materialise_together("kind", ["d", "c", "b", "a"], lambda given: build(given, "c"))
    entries = store.materialise_together("kind", ["d", "c", "b", "a"], build)
    assert asked == [["a", "c", "d"], ["c", "d"]]
    assert {key: entry.reused for key, entry in entries.items()} == {"a": True, "b": True, "c": False, "d": False}
    assert (entries["d"].path / "content").read_text() == "d"


def test_paths_of_a_home_that_lay_elsewhere_lead_into_this_one() -> None:
    key = "0" * 40
    here = entries.root() / "merge" / key / "model"
    here.mkdir(parents=True)
    assert store.here(Path("/lost/home/store/merge") / key / "model") == here == store.here(here)
    for other in (Path("/lost/home/store/merge") / ("1" * 40) / "model", Path("/store/merge/own/model"), Path("model")):
        assert store.here(other) == other
